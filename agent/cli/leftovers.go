package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// errKept says that something was not deleted.
var errKept = errors.New("not everything was deleted")

func (a *app) operationLeftoversCommand() *cobra.Command {
	var del bool
	cmd := &cobra.Command{
		Use:   "leftovers [PATH...]",
		Short: "List, or delete, files in the pools that nothing owns",
		Long: "List files in this host's pools that no instance, record, template, reservation or unfinished operation names. " +
			"With --delete those go that bear a name that only Wherry gives; others only where each is named by its path. " +
			"Each is looked at again just before, and stays where something has it open.",
	}
	run := a.withAgent(func(ctx context.Context, g agent, paths []string) error {
		left, err := g.Leftovers(ctx)
		if err != nil {
			return failed("list the leftovers", err)
		}
		if !del {
			return a.print(api.LeftoverList{Leftovers: left}, func(w io.Writer) { leftoverTable(w, left) })
		}
		if len(paths) == 0 {
			paths = made(left)
		}
		out := api.LeftoversDeleted{Deleted: []string{}, Kept: []api.LeftoverKept{}}
		if len(paths) > 0 {
			if out, err = g.DeleteLeftovers(ctx, paths); err != nil {
				return failed("delete the leftovers", err)
			}
		}
		if err := a.print(out, func(w io.Writer) { deletedText(w, out) }); err != nil {
			return err
		}
		if len(out.Kept) > 0 {
			return failed("delete the leftovers", errKept)
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && !del {
			return usagef(cmd, "a PATH goes with --delete only")
		}
		return run(cmd, args)
	}
	cmd.Flags().BoolVar(&del, "delete", false, "delete what Wherry has made, or exactly what is named")
	return cmd
}

// made gives the paths of those that bear a name that only Wherry gives.
func made(left []api.Leftover) []string {
	var out []string
	for _, l := range left {
		if l.Made {
			out = append(out, l.Path)
		}
	}
	return out
}

func leftoverTable(w io.Writer, left []api.Leftover) {
	fmt.Fprintln(w, "KIND\tPOOL\tSIZE\tMODIFIED\tMADE\tPATH")
	for _, l := range left {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Kind, l.Pool, config.FormatSize(l.Bytes), timeText(l.ModifiedAt), yesNo(l.Made), l.Path)
	}
}

func deletedText(w io.Writer, out api.LeftoversDeleted) {
	for _, p := range out.Deleted {
		fmt.Fprintf(w, "deleted\t%s\n", p)
	}
	for _, k := range out.Kept {
		fmt.Fprintf(w, "kept\t%s\t%s\n", k.Path, k.Why)
	}
	if len(out.Deleted)+len(out.Kept) == 0 {
		fmt.Fprintln(w, "nothing to delete")
	}
}
