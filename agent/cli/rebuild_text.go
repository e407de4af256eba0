package cli

import (
	"cmp"
	"fmt"
	"io"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// rebuildQuestion says what is lost, and what comes in its place.
func rebuildQuestion(w io.Writer, name string, p api.RebuildPlan) {
	fmt.Fprintf(w, "everything on disk %s of %s will be lost:\n", p.Disk, name)
	fmt.Fprintf(w, "  %s, %s, %s written\n", p.Old.Path, rebuildDisk(p.Old), config.FormatSize(p.Old.Allocated))
	fmt.Fprintf(w, "it becomes %s\n", rebuildDisk(p.New))
	if p.Fetch {
		fmt.Fprintf(w, "  template %s is fetched first\n", p.New.Template)
	}
	if p.Stop {
		fmt.Fprintln(w, "  the instance runs: it is stopped, and started again")
	} else if p.Start {
		fmt.Fprintln(w, "  the instance is started afterwards")
	}
	for _, text := range p.Warnings {
		fmt.Fprintf(w, "  ! %s\n", text)
	}
}

// rebuildDisk is "10 GiB from template rocky9 (linked)", or "10 GiB, empty".
func rebuildDisk(d api.RebuildDisk) string {
	if d.Template == "" {
		if d.Path != "" {
			return config.FormatSize(d.Size) + " from no known template"
		}
		return config.FormatSize(d.Size) + ", empty"
	}
	return fmt.Sprintf("%s from template %s (%s)", config.FormatSize(d.Size), d.Template, d.Clone)
}

func rebuildResult(w io.Writer, op api.Operation, r api.RebuildResult) {
	state := "is not started"
	if r.Started {
		state = "runs"
	}
	what := "empty"
	if r.New.Template != "" {
		what = "from template " + r.New.Template
	}
	fmt.Fprintf(w, "%s has a new disk %s, %s, and %s\n", op.Instance, r.Disk, what, state)
	fmt.Fprintf(w, "  disk\t%s, %s\n", r.New.Path, config.FormatSize(r.New.Size))
	if r.Rung != "" {
		fmt.Fprintf(w, "  stopped\t%s\n", r.Rung)
	}
	if r.Removed {
		fmt.Fprintf(w, "  removed\t%s\n", r.Old.Path)
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "  ! %s\n", text)
	}
}

// groupTable sums up what became of each instance.
func groupTable(w io.Writer, list []groupResult) {
	fmt.Fprintln(w, "NAME\tRESULT\tOPERATION\tDETAIL")
	for _, r := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, r.Result, cmp.Or(r.Operation, "-"), cmp.Or(r.Detail, "-"))
	}
}
