package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
)

// keptAtSource is the code of a migration that was settled by keeping the
// source: the migration has failed, the command has not.
const keptAtSource = "kept-at-source"

func (a *app) operationResolveCommand() *cobra.Command {
	var r api.ResolveRequest
	var noWait bool
	cmd := &cobra.Command{
		Use:   "resolve ID --keep source|destination",
		Short: "Settle an operation that needs a decision",
		Long: "Settle an operation in needs_decision: the instance goes on at the side that is kept, and its copy on the other side ends. " +
			"Both hosts are asked first, and what would make two running copies or destroy the only one is refused. " +
			"Of a host that cannot be asked say what you know by --other-host.",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeOperations,
	}
	run := a.withAgent(func(ctx context.Context, g agent, args []string) error {
		what := "resolve operation " + args[0]
		op, err := g.Resolve(ctx, args[0], r, newKey())
		if err == nil && !noWait {
			if op, err = a.follow(ctx, g, op, what); err == nil && op.Error != nil && op.Error.Code == keptAtSource {
				return a.print(op, func(w io.Writer) { keptText(w, op) })
			}
		}
		return a.finish(ctx, g, what, op, err, noWait)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.Keep != api.SideSource && r.Keep != api.SideDestination {
			return usagef(cmd, "--keep must be source or destination")
		}
		return run(cmd, args)
	}
	cmd.Flags().StringVar(&r.Keep, "keep", "", "the side on which the instance goes on: source or destination")
	cmd.Flags().StringVar(&r.OtherHost, "other-host", "", "what you know of the other host while it cannot be asked: down (the copy there does not run, and will not by itself) or has-it (the instance runs there)")
	noWaitFlag(cmd, &noWait)
	return cmd
}

func keptText(w io.Writer, op api.Operation) {
	fmt.Fprintf(w, "%s goes on at the source\n", about(op))
	if op.Error.Hint != "" {
		fmt.Fprintf(w, "  %s\n", op.Error.Hint)
	}
}

// sideText says in a line what one host said of an instance.
func sideText(s api.SideFacts) string {
	parts := []string{strings.TrimSpace(s.State + " " + parenthesised(s.Reason))}
	if s.Process != "" {
		parts = append(parts, "QEMU: "+s.Process)
	}
	for _, f := range []struct {
		is   bool
		text string
	}{{s.Job, "a migration is under way"}, {s.Sent, "has handed the guest over"}, {s.Halted, "paused by the agent"}} {
		if f.is {
			parts = append(parts, f.text)
		}
	}
	for _, v := range s.Volumes {
		parts = append(parts, fmt.Sprintf("%s: %s %s", v.Disk, v.Path, map[bool]string{true: "is there", false: "not seen"}[v.Present]))
	}
	if s.SeenAt != nil {
		parts = append(parts, "seen "+timeText(*s.SeenAt))
	} else {
		parts = append(parts, "never seen")
	}
	if s.Detail != "" {
		parts = append(parts, s.Detail)
	}
	return cmp.Or(s.Host, "?") + ": " + strings.Join(parts, ", ")
}

func parenthesised(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}
