package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wherry-kvm/wherry/http/api"
)

// errDeclined: a person was asked, and did not say yes.
var errDeclined = errors.New("nothing was done")

func (a *app) rebuildCommand() *cobra.Command {
	var one rebuildFlags
	var group groupFlags
	cmd := &cobra.Command{
		Use:   "rebuild NAME | rebuild --all --match PATTERN...",
		Short: "Replace the root disk of an instance by a fresh one",
		Long: `Replace the root disk of an instance by a fresh one: of the template that it was
made from, of another one (--template), or by an empty one (--empty). What is on
the old disk is lost. The definition, UUID, MAC addresses, NVRAM and the other
disks stay.

The new disk is made before the old one goes, so that there must be room for
both, and a rebuild that fails leaves the instance as it was. An instance that
runs is not touched unless --force says so; it is then stopped first, and started
again whatever comes of the rebuild. One with snapshots is refused.

With --all the instances of the project are rebuilt one after the other, those of
which a --match says so (a pattern such as 'web-*'; several add up). It stops at
the first that fails, unless --keep-going is given.`,
		Example: `  wherry rebuild vm1
  wherry rebuild vm1 --template debian13 --disk-size 20GiB --force
  wherry rebuild --all --match 'web-*' --template debian13 --force --parallel 2`,
		ValidArgsFunction: a.completeInstances,
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if group.all {
			return noArgs(cmd, args)
		}
		return exactArgs("NAME")(cmd, args)
	}
	cmd.RunE = a.withAgent(func(ctx context.Context, g agent, args []string) error {
		r, err := one.request()
		if err == nil {
			err = group.check(one)
		}
		if err == nil && !one.yes && !a.canAsk() {
			err = errors.New("what is on the disk is lost, and nobody can be asked here: say --yes")
		}
		if err != nil {
			return usage(cmd, err)
		}
		if group.all {
			return (&rollout{app: a, g: g, r: r, flags: group, yes: one.yes}).run(ctx)
		}
		return a.rebuildOne(ctx, g, args[0], r, one)
	})
	one.register(cmd)
	group.register(cmd)
	return cmd
}

// rebuildFlags are the choices of a rebuild.
type rebuildFlags struct {
	template                         string
	empty, force, start, yes, noWait bool
	diskSize                         sizeFlag
	timeout                          time.Duration
	set                              *pflag.FlagSet
}

func (r *rebuildFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	r.set = f
	f.StringVar(&r.template, "template", "", "make the disk from this template, instead of the one that it was made from")
	f.BoolVar(&r.empty, "empty", false, "make an empty disk")
	f.BoolVar(&r.force, "force", false, "stop an instance that runs, and start it again")
	f.DurationVar(&r.timeout, "timeout", 0, "with --force: how long the guest is given before its power is cut (default: the agent's)")
	f.BoolVar(&r.start, "start", false, "start it afterwards")
	f.Var(&r.diskSize, "disk-size", "grow the disk to this size")
	f.BoolVar(&r.yes, "yes", false, "do not ask")
	noWaitFlag(cmd, &r.noWait)
}

func (r *rebuildFlags) request() (api.RebuildRequest, error) {
	out := api.RebuildRequest{Source: api.RebuildSource{Type: api.SourceOriginal}, Start: r.start, Force: r.force,
		Timeout: api.Duration(r.timeout), DiskSize: int64(r.diskSize)}
	switch {
	case r.set.Changed("template") && r.template == "":
		// A variable of a script that is not set: anything but the original.
		return out, errors.New("--template names no template")
	case r.set.Changed("disk-size") && r.diskSize == 0:
		return out, errors.New("--disk-size is more than 0")
	case r.empty && r.template != "":
		return out, errors.New("say either --template or --empty")
	case r.timeout != 0 && !r.force:
		return out, errors.New("--timeout goes with --force")
	case r.empty:
		out.Source.Type = api.SourceEmpty
	case r.template != "":
		out.Source = api.RebuildSource{Type: api.SourceTemplate, Template: r.template}
	}
	return out, nil
}

func (a *app) rebuildOne(ctx context.Context, g agent, name string, r api.RebuildRequest, flags rebuildFlags) error {
	what := "rebuild " + name
	if !flags.yes {
		// What stands in the way is said before anybody is asked.
		plan, err := g.PlanRebuild(ctx, a.global.ref(name), r)
		if err != nil {
			return failed(what, err)
		}
		rebuildQuestion(a.err, name, plan)
		if err := a.confirm(ctx, "replace the disk?"); err != nil {
			return failed(what, err)
		}
	}
	op, err := g.Rebuild(ctx, a.global.ref(name), r, newKey())
	return a.finish(ctx, g, what, op, err, flags.noWait)
}

// canAsk tells whether a person is there to be asked.
func (a *app) canAsk() bool { return isTerminal(a.in) && isTerminal(a.err) }

// confirm asks for a yes. Anything else, or the end of the input, is a no.
func (a *app) confirm(ctx context.Context, question string) error {
	fmt.Fprint(a.err, question+" [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := readLine(a.in)
		answer <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return errDeclined
	case line := <-answer:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return errDeclined
	}
}

// readLine reads one line and not a byte more: what follows is for whoever asks
// next.
func readLine(in io.Reader) (string, error) {
	var line strings.Builder
	var b [1]byte
	for {
		if n, err := in.Read(b[:]); n == 0 || b[0] == '\n' {
			return line.String(), err
		}
		line.WriteByte(b[0])
	}
}
