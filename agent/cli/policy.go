package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wherry-kvm/wherry/http/api"
)

// policyFlags say how an instance goes down with its host.
type policyFlags struct {
	set      *pflag.FlagSet
	prefix   string
	priority int
	timeout  time.Duration
	action   string
}

func (p *policyFlags) register(cmd *cobra.Command, prefix string) {
	p.set, p.prefix = cmd.Flags(), prefix
	p.set.IntVar(&p.priority, prefix+"priority", 0, "when the host is shut down: the highest go first, those that are equal together")
	p.set.DurationVar(&p.timeout, prefix+"timeout", 0, "when the host is shut down: how long the guest is given at most (default: 2m)")
	p.set.StringVar(&p.action, prefix+"action", "", "when the host is shut down: stop (ask the guest) or force (cut its power at once)")
}

// over puts what was said over what there is; false when nothing was said.
func (p *policyFlags) over(now api.StopPolicy) (api.StopPolicy, bool) {
	said := false
	for flag, apply := range map[string]func(){
		"priority": func() { now.Priority = p.priority },
		"timeout":  func() { now.Timeout = api.Duration(p.timeout) },
		"action":   func() { now.Action = p.action },
	} {
		if p.set.Changed(p.prefix + flag) {
			said = true
			apply()
		}
	}
	return now, said
}

func (a *app) stopPolicyCommand() *cobra.Command {
	var flags policyFlags
	cmd := &cobra.Command{
		Use:   "stop-policy NAME",
		Short: "Say how an instance goes down with its host, or show it",
		Long: `Say how an instance goes down when its host is shut down; without a flag, show
it. What is not said stays as it is. Where instances are started again after the
host was down, the lowest priority comes first.`,
		Example:           "  wherry stop-policy web1 --priority 10 --timeout 90s",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			what, ref := "set the stop policy of "+args[0], a.global.ref(args[0])
			i, err := g.Instance(ctx, ref)
			if err != nil {
				return failed(what, err)
			}
			p := api.StopPolicy{}
			if i.Stop != nil {
				p = *i.Stop
			}
			if wanted, said := flags.over(p); said {
				if p, err = g.SetStopPolicy(ctx, ref, wanted); err != nil {
					return failed(what, err)
				}
			}
			return a.print(p, func(w io.Writer) { policyText(w, p) })
		}),
	}
	flags.register(cmd, "")
	return cmd
}

func policyText(w io.Writer, p api.StopPolicy) {
	fmt.Fprintf(w, "priority:\t%d\n", p.Priority)
	switch {
	case p.Action == api.StopForce:
		fmt.Fprintln(w, "action:\tforce: its power is cut at once")
		return
	case p.Timeout == 0:
		fmt.Fprintln(w, "timeout:\tthe default")
	default:
		fmt.Fprintf(w, "timeout:\t%s\n", p.Timeout.Std())
	}
	fmt.Fprintln(w, "action:\tstop: the guest is asked")
}
