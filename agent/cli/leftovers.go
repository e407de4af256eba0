package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// errKept says that something was not deleted.
var errKept = errors.New("not everything was deleted")

func (a *app) operationLeftoversCommand() *cobra.Command {
	var del, all bool
	cmd := &cobra.Command{
		Use:   "leftovers [--delete ID...|--delete --all]",
		Short: "List, or delete, what nothing on this host owns",
		Long: "List what nothing on this host owns: files in its pools that no instance, record, template, reservation or unfinished operation " +
			"names, and what operations have had libvirt and QEMU make and nobody needs any more. Nothing is deleted without --delete: " +
			"with --all what Wherry has made, other files only where each is named by its path. " +
			"Each is looked at again just before, and a file stays while something has it open.",
	}
	run := a.withAgent(func(ctx context.Context, g agent, ids []string) error {
		left, err := g.Leftovers(ctx)
		if err != nil {
			return failed("list the leftovers", err)
		}
		if !del {
			return a.print(left, func(w io.Writer) { leftoverText(w, left) })
		}
		if all {
			ids = made(left.Leftovers)
		}
		out := api.LeftoversDeleted{Deleted: []string{}, Kept: []api.LeftoverKept{}}
		if len(ids) > 0 {
			if out, err = g.DeleteLeftovers(ctx, ids); err != nil {
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
		switch {
		case !del && (all || len(args) > 0):
			return usagef(cmd, "--all, and an ID, go with --delete only")
		case del && all == (len(args) > 0):
			return usagef(cmd, "say what to delete: each by its ID, or --all that Wherry has made")
		}
		return run(cmd, args)
	}
	cmd.Flags().BoolVar(&del, "delete", false, "delete what is named, or with --all")
	cmd.Flags().BoolVar(&all, "all", false, "with --delete: all that Wherry has made")
	return cmd
}

// made gives the ids of those that Wherry has made.
func made(left []api.Leftover) []string {
	var out []string
	for _, l := range left {
		if l.Made {
			out = append(out, l.ID)
		}
	}
	return out
}

// textWidth is that of the explanations; ids may be longer, to be copied whole.
const textWidth = 100

// leftoverText is made to be read in a hurry: each with its reason, then how
// much it is and what to type.
func leftoverText(w io.Writer, list api.LeftoverList) {
	var all, ours int64
	for _, l := range list.Leftovers {
		all += l.Bytes
		if l.Made {
			ours += l.Bytes
		}
		fmt.Fprintln(w, l.ID)
		fmt.Fprintf(w, "  %s\n", strings.Join(facts(l), ", "))
		for _, text := range []string{"why: " + l.Why, "--delete " + l.Delete} {
			for _, line := range wrap(text, textWidth-4) {
				fmt.Fprintf(w, "  %s\n", line)
			}
		}
		fmt.Fprintln(w)
	}
	for _, s := range list.Skipped {
		fmt.Fprintf(w, "not looked at: %s: %s\n", s.What, s.Why)
	}
	n, m := len(list.Leftovers), len(made(list.Leftovers))
	if n == 0 {
		fmt.Fprintln(w, "nothing is left over")
		return
	}
	fmt.Fprintf(w, "%d left over, %s; %d of them made by Wherry, %s\n", n, config.FormatSize(all), m, config.FormatSize(ours))
	if m > 0 {
		fmt.Fprintln(w, "delete what Wherry made:  wherry operation leftovers --delete --all")
	}
	fmt.Fprintln(w, "delete one:               wherry operation leftovers --delete ID")
}

// facts say in a few words what it is.
func facts(l api.Leftover) []string {
	out := []string{l.Kind}
	if l.Path != "" {
		out = append(out, config.FormatSize(l.Bytes), "pool "+l.Pool)
	}
	if l.Instance != "" {
		out = append(out, "instance "+l.Instance)
	}
	if !l.ModifiedAt.IsZero() {
		out = append(out, "since "+timeText(l.ModifiedAt))
	}
	switch {
	case l.Operation != "":
		out = append(out, "made by operation "+l.Operation)
	case l.Made:
		out = append(out, "made by Wherry")
	default:
		out = append(out, "made by anybody")
	}
	return out
}

// wrap breaks a text at its spaces; all lines but the first are indented.
func wrap(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		at := len(lines) - 1
		switch {
		case lines[at] == "":
			lines[at] = word
		case utf8.RuneCountInString(lines[at])+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, "  "+word)
		default:
			lines[at] += " " + word
		}
	}
	return lines
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
