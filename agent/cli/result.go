package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// resultText tells a person how an operation ended well.
func resultText(w io.Writer, what string, op api.Operation) {
	switch op.Kind {
	case "migrate":
		var r api.MigrateResult
		if json.Unmarshal(op.Result, &r) == nil && r.Mode != "" {
			migrateResult(w, op, r)
			return
		}
	case templateKind, scrubKind:
		var t api.Template
		if json.Unmarshal(op.Result, &t) == nil && t.ID != "" {
			templateResult(w, op, t)
			return
		}
	case "rebuild":
		var r api.RebuildResult
		if json.Unmarshal(op.Result, &r) == nil && r.Disk != "" {
			rebuildResult(w, op, r)
			return
		}
	case "stop", "restart":
		var r api.StopResult
		if json.Unmarshal(op.Result, &r) == nil && r.Rung != "" {
			stopResult(w, op, r)
			return
		}
	}
	fmt.Fprintf(w, "%s: done\n", what)
}

func templateResult(w io.Writer, op api.Operation, t api.Template) {
	took := durationText(op.UpdatedAt.Sub(op.CreatedAt))
	if op.Kind == scrubKind {
		fmt.Fprintf(w, "template %s is what it was: its copies were read whole, in %s\n", t.ID, took)
		return
	}
	fmt.Fprintf(w, "template %s is ready after %s: %s of %s\n", t.ID, took, t.Format, config.FormatSize(t.VirtualSize))
	for _, c := range t.Copies {
		if c.State == api.CopyReady {
			fmt.Fprintf(w, "  %s\t%s%s\n", c.Pool, c.Path, onDisk(c))
		}
	}
}

func onDisk(c api.TemplateCopy) string {
	if c.Allocated == 0 {
		return ""
	}
	return ", " + config.FormatSize(c.Allocated) + " on disk"
}

// stopResult tells what ended an instance, and, where that was not the first
// that was tried, what else was.
func stopResult(w io.Writer, op api.Operation, r api.StopResult) {
	done := "stopped"
	if op.Kind == "restart" {
		done = "restarted"
	}
	fmt.Fprintf(w, "%s is %s (%s)\n", op.Instance, done, r.Rung)
	if len(r.Rungs) > 1 {
		for _, x := range r.Rungs {
			fmt.Fprintf(w, "  %s\t%s\t%s\n", x.Rung, durationText(x.Took.Std()), rungNotes(x))
		}
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "  ! %s\n", text)
	}
}

func rungNotes(x api.RungTime) string {
	if x.Tries > 1 {
		return fmt.Sprintf("%d times", x.Tries)
	}
	return x.Error
}

func migrateResult(w io.Writer, op api.Operation, r api.MigrateResult) {
	fmt.Fprintf(w, "%s runs on %s now: %s clone in %s\n", op.Instance, r.Destination, r.Mode,
		durationText(op.UpdatedAt.Sub(op.CreatedAt)))
	fmt.Fprintf(w, "  moved\t%s of disks, %s of memory\n", config.FormatSize(r.Bytes.Disk), config.FormatSize(r.Bytes.Memory))
	fmt.Fprintf(w, "  downtime\t%s\n", durationText(r.Downtime.Std()))
	for _, phase := range phaseOrder(op, r) {
		fmt.Fprintf(w, "  %s\t%s\n", phase, durationText(r.Phases[phase].Std()))
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "  ! %s\n", text)
	}
}

// phaseOrder gives the phases of a result in the order in which they ran.
func phaseOrder(op api.Operation, r api.MigrateResult) []string {
	var order []string
	for _, s := range op.Steps {
		if _, measured := r.Phases[s.Name]; measured && !slices.Contains(order, s.Name) {
			order = append(order, s.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Phases)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	return order
}
