package cli

import (
	"fmt"
	"io"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// planTable lays a plan out: the decision with its reasons, then each disk
// with what it stands on and where it goes, then what was checked.
func planTable(w io.Writer, name, destination string, p api.Plan) {
	forced := ""
	if p.Forced {
		forced = ", forced"
	}
	fmt.Fprintf(w, "%s -> %s: %s clone%s, %s to move\n", name, destination, p.Mode, forced, config.FormatSize(p.Bytes))
	for _, r := range p.Reasons {
		fmt.Fprintf(w, "  because %s\n", reasonText(r))
	}
	for _, d := range p.Disks {
		fmt.Fprintln(w)
		planDisk(w, d)
	}
	if len(p.Checks) > 0 {
		fmt.Fprintf(w, "\nchecks\n")
	}
	for _, c := range p.Checks {
		fmt.Fprintf(w, "  %s %s: %s\n", okMark(c.OK), c.Code, c.Detail)
	}
}

func planDisk(w io.Writer, d api.PlanDisk) {
	action := d.Action
	if d.Clone != "" {
		action += ", " + d.Clone + " clone"
	}
	fmt.Fprintf(w, "%s  %s (%s)", d.Target, action, d.Reason)
	if d.Action == api.ActionCopy {
		fmt.Fprintf(w, ", %s", config.FormatSize(d.Bytes))
	}
	fmt.Fprintln(w)
	if len(d.Chain) > 0 {
		fmt.Fprintln(w, "  stands on")
		chainTree(w, "    ", d.Chain)
	}
	for _, l := range d.Stage {
		fmt.Fprintf(w, "  staged first: %s (%s)\n", l.Path, config.FormatSize(l.Allocated))
	}
	if d.Seed != nil {
		fmt.Fprintf(w, "  frozen layers from %s\n", seedText(*d.Seed))
	}
	if d.Connect != nil {
		fmt.Fprintf(w, "  connects %s\n", targetText(*d.Connect))
	}
	if d.Destination != nil {
		fmt.Fprintf(w, "  goes to\n")
		planPlace(w, *d.Destination)
	}
}

func planPlace(w io.Writer, p api.DiskPlace) {
	place := ""
	if p.Pool != "" {
		place = "  pool " + p.Pool
	}
	fmt.Fprintf(w, "    %s  %s%s\n", p.Path, p.Format, place)
	backing := p.Chain
	if len(backing) == 0 && p.Backing != nil {
		backing = []api.Layer{*p.Backing}
	}
	for i, l := range backing {
		fmt.Fprintf(w, "    %s└ %s  %s\n", spaces(2*i), l.Path, l.Format)
	}
}

func seedText(s api.Seed) string {
	text := "the " + s.From
	if s.Template != "" {
		text += ", template " + s.Template
	}
	if s.Bytes > 0 {
		text += " (" + config.FormatSize(s.Bytes) + ")"
	}
	return text
}

func okMark(ok bool) string {
	if ok {
		return "ok    "
	}
	return "FAILED"
}

// targetText names a target without its secret.
func targetText(t api.Target) string {
	switch t.Type {
	case "iscsi":
		return fmt.Sprintf("iscsi %s %s lun %d", t.Portal, t.IQN, t.LUN)
	case "powerflex":
		return fmt.Sprintf("powerflex %s volume %s", t.SystemID, t.VolumeID)
	case "rbd":
		return fmt.Sprintf("rbd %s/%s", t.Pool, t.Image)
	default:
		return t.Type + " " + t.Path
	}
}
