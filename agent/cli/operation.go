package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

func (a *app) operationCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "operation", Aliases: []string{"op"}, Short: "Look at, await, cancel and settle operations", Args: noArgs, RunE: subcommandWanted}
	cmd.AddCommand(a.operationListCommand(), a.operationInfoCommand(), a.operationWaitCommand(), a.operationCancelCommand(), a.operationResolveCommand(), a.operationLeftoversCommand())
	return cmd
}

func (a *app) operationListCommand() *cobra.Command {
	var filter client.OperationFilter
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the operations that the agent remembers",
		Args:    noArgs,
		RunE: a.withAgent(func(ctx context.Context, g agent, _ []string) error {
			filter.Project = a.global.project
			ops, err := g.Operations(ctx, filter)
			if err != nil {
				return failed("list the operations", err)
			}
			return a.print(api.OperationList{Operations: ops}, func(w io.Writer) { operationTable(w, ops) })
		}),
	}
	cmd.Flags().StringVar(&filter.Instance, "instance", "", "only those of this instance")
	cmd.Flags().StringVar(&filter.Status, "status", "", "only those of this status: pending, running, succeeded, failed, cancelled, needs_decision")
	return cmd
}

func (a *app) operationInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "info ID",
		Short:             "Show an operation with its steps",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeOperations,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.Operation(ctx, args[0])
			if err != nil {
				return failed("show operation "+args[0], err)
			}
			return a.print(op, func(w io.Writer) { operationInfo(w, op) })
		}),
	}
}

func (a *app) operationWaitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:               "wait ID",
		Short:             "Wait until an operation has ended, and end as it did",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeOperations,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			op, err := g.Operation(ctx, args[0])
			return a.finish(ctx, g, "wait for "+args[0], op, err, false)
		}),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up waiting after this time; the operation runs on")
	return cmd
}

func (a *app) operationCancelCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:               "cancel ID",
		Short:             "Cancel an operation, and wait until it is undone",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeOperations,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.Cancel(ctx, args[0])
			if err != nil {
				return failed("cancel operation "+args[0], err)
			}
			return a.finishCancelled(ctx, g, op, noWait)
		}),
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

// about is the instance or the template of an operation; "" for neither.
func about(op api.Operation) string {
	return cmp.Or(op.Template, api.Ref{Project: op.Project, Name: op.Instance}.String())
}

func operationTable(w io.Writer, ops []api.Operation) {
	fmt.Fprintln(w, "ID\tKIND\tSUBJECT\tSTATUS\tPHASE\tPERCENT\tCREATED")
	for _, op := range ops {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.0f\t%s\n", op.ID, op.Kind, about(op),
			op.Status, phaseText(op), op.Progress.Percent, timeText(op.CreatedAt))
	}
}

// phaseText is the phase, with the place of what waits in a line.
func phaseText(op api.Operation) string {
	q := op.Progress.Queue
	if q == nil || op.Ended() {
		return op.Phase
	}
	if q.Position == 0 {
		return fmt.Sprintf("%s %s", op.Phase, q.Direction)
	}
	return fmt.Sprintf("%s %s %d", op.Phase, q.Direction, q.Position)
}

// waitInfo says what an operation waits for while nothing moves, and how its
// memory gets on.
func waitInfo(w io.Writer, op api.Operation) {
	if op.Ended() {
		return
	}
	row(w, "waits", op.Progress.Detail)
	if q := op.Progress.Queue; q != nil {
		row(w, "ahead of it", strings.Join(q.Ahead, ", "))
		row(w, "under way", strings.Join(q.Operations, ", "))
	}
	if c := op.Progress.Convergence; c != nil {
		row(w, "memory", c.Action+": "+c.Reason)
	}
}

func operationInfo(w io.Writer, op api.Operation) {
	row(w, "id", op.ID)
	row(w, "kind", op.Kind)
	row(w, "instance", api.Ref{Project: op.Project, Name: op.Instance}.String())
	row(w, "template", op.Template)
	row(w, "status", op.Status)
	row(w, "phase", phaseText(op))
	row(w, "progress", progressText(op.Progress, op.UpdatedAt.Sub(op.CreatedAt)))
	waitInfo(w, op)
	row(w, "created", timeText(op.CreatedAt))
	row(w, "updated", timeText(op.UpdatedAt))
	row(w, "cancellable", yesNo(op.Cancellable))
	for _, s := range op.Steps {
		text := s.Status
		if s.EndedAt != nil {
			text += " in " + durationText(s.EndedAt.Sub(s.StartedAt))
		}
		if s.Detail != "" {
			text += ": " + s.Detail
		}
		row(w, "step "+s.Name, text)
	}
	if op.Error != nil {
		row(w, "error", op.Error.Error())
		row(w, "hint", op.Error.Hint)
		for _, s := range op.Error.Sides {
			row(w, s.Side, sideText(s))
		}
		for _, c := range op.Error.Commands {
			row(w, "settle by", c)
		}
	}
}
