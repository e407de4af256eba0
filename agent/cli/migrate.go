package cli

import (
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
)

// agentPort is where a peer's agent listens unless its URL says otherwise.
const agentPort = "8470"

func (a *app) migrationCommands() []*cobra.Command {
	var planFlags, flags migrateFlags
	var noWait bool
	plan := &cobra.Command{
		Use:               "plan NAME DEST",
		Short:             "Show how an instance would move to another host, and why so",
		Args:              exactArgs("NAME", "DEST"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			plan, err := g.Plan(ctx, a.global.ref(args[0]), planFlags.request(args[1]))
			if err != nil {
				return failed("plan "+args[0], err)
			}
			return a.print(plan, func(w io.Writer) { planTable(w, args[0], destinationURL(args[1]), plan) })
		}),
	}
	planFlags.register(plan)
	migrate := &cobra.Command{
		Use:   "migrate NAME DEST",
		Short: "Move a running instance with its storage to another host",
		Long: `Move a running instance with its storage to another host. DEST is the URL of
the other host's agent, or its name alone.

Ctrl-C asks whether to cancel the migration or to leave it running.`,
		Example:           "  wherry migrate vm1 hostb\n  wherry migrate vm1 hostb --disk target=vda,pool=fast,format=raw --bandwidth 200MiB",
		Args:              exactArgs("NAME", "DEST"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.Migrate(ctx, a.global.ref(args[0]), flags.request(args[1]), newKey())
			return a.finish(ctx, g, "migrate "+args[0], op, err, noWait)
		}),
	}
	flags.register(migrate)
	noWaitFlag(migrate, &noWait)
	return []*cobra.Command{plan, migrate}
}

// migrateFlags are the choices of a migration; plan and migrate take the same.
type migrateFlags struct {
	r                                  api.MigrateRequest
	disks                              diskFlags
	bandwidth                          sizeFlag
	maxDowntime, timeout, stallTimeout time.Duration
}

func (m *migrateFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.r.Mode, "mode", "", "auto (the agent chooses), full or linked")
	f.Var(&m.disks, "disk", "where a disk goes: target=vda[,pool=P][,format=F][,connect=TYPE,...]; repeatable")
	f.BoolVar(&m.r.StageTemplates, "stage-templates", false, "copy a missing template to the destination first, so that a clone can stay linked")
	f.StringVar(&m.r.Seed, "seed", "", "auto (fill a full clone from the nearest copy of its frozen layers) or off")
	f.Var(&m.bandwidth, "bandwidth", "limit for each stream, bytes per second: 200MiB")
	f.DurationVar(&m.maxDowntime, "max-downtime", 0, "how long the guest may stand still at the switchover")
	f.BoolVar(&m.r.AutoConverge, "auto-converge", false, "slow a guest down that dirties memory faster than it can be copied")
	f.BoolVar(&m.r.PostCopy, "post-copy", false, "switch over before all memory is copied, if it does not converge")
	f.StringVar(&m.r.OnNotConverging, "on-not-converging", "", "then: downtime (longer in steps up to --max-downtime, then abort), pause or abort")
	f.DurationVar(&m.timeout, "timeout", 0, "give up after this time")
	f.DurationVar(&m.stallTimeout, "stall-timeout", 0, "give up when nothing moved for this time")
	f.BoolVar(&m.r.KeepSourceVolumes, "keep-source-volumes", false, "leave the volumes on the source host")
}

func (m *migrateFlags) request(destination string) api.MigrateRequest {
	r := m.r
	r.Destination = destinationURL(destination)
	r.Disks = m.disks
	r.Bandwidth = int64(m.bandwidth)
	r.MaxDowntime = api.Duration(m.maxDowntime)
	r.Timeout = api.Duration(m.timeout)
	r.StallTimeout = api.Duration(m.stallTimeout)
	return r
}

// destinationURL turns a host's name, with or without a port, into the URL of
// its agent. A URL stays what it is.
func destinationURL(destination string) string {
	if strings.Contains(destination, "://") {
		return destination
	}
	host, port, err := net.SplitHostPort(destination)
	if err != nil {
		host, port = strings.Trim(destination, "[]"), agentPort
	}
	u := url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
	return u.String()
}
