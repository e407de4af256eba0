package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
)

func (a *app) targetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "target", Short: "Connect and disconnect storage targets", Args: noArgs, RunE: subcommandWanted}
	const example = `  wherry target %[1]s iscsi,portal=192.0.2.1:3260,iqn=iqn.2026-01.org.example:disk1,lun=1
  wherry target %[1]s powerflex,system_id=ID,volume_id=ID file,path=/srv/share/disk.qcow2`
	cmd.AddCommand(
		&cobra.Command{
			Use: "add TYPE,KEY=VALUE,...", Short: "Connect targets, all or none, and print their paths",
			Example: fmt.Sprintf(example, "add"), Args: someTargets, RunE: a.modifyTargets(true),
		},
		&cobra.Command{
			Use: "rm TYPE,KEY=VALUE,...", Aliases: []string{"remove"}, Short: "Disconnect targets",
			Example: fmt.Sprintf(example, "rm"), Args: someTargets, RunE: a.modifyTargets(false),
		},
	)
	return cmd
}

func someTargets(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef(cmd, "no target is given")
	}
	return nil
}

func (a *app) modifyTargets(add bool) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		r := api.TargetsRequest{Add: add}
		for _, arg := range args {
			t, err := parseTarget(arg)
			if err != nil {
				return usagef(cmd, "target %q: %w", arg, err)
			}
			r.Targets = append(r.Targets, t)
		}
		return a.withAgent(func(ctx context.Context, g agent, _ []string) error {
			answer, err := g.ModifyTargets(ctx, r)
			if err != nil {
				return failed(map[bool]string{true: "connect targets", false: "disconnect targets"}[add], err)
			}
			return a.print(answer, func(w io.Writer) {
				for _, c := range answer.Connected {
					fmt.Fprintln(w, c.Path)
				}
			})
		})(cmd, args)
	}
}

// parseTarget reads TYPE,KEY=VALUE,...
func parseTarget(text string) (api.Target, error) {
	kind, rest, _ := strings.Cut(text, ",")
	w := &words{values: map[string]string{}}
	if rest != "" {
		var err error
		if w, err = splitWords(rest); err != nil {
			return api.Target{}, err
		}
	}
	t, err := readTarget(kind, w)
	if err != nil {
		return api.Target{}, err
	}
	return *t, w.leftover()
}
