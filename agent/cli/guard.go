package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/guard"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// guardCommand is the process that the agent starts for each migration, to
// outlive it. What it guards comes on standard input.
func (a *app) guardCommand() *cobra.Command {
	var dir string
	var log config.Log
	cmd := &cobra.Command{
		Use:    "guard",
		Short:  "Keep an instance that is handed over from starting here again; the agent runs this",
		Args:   noArgs,
		Hidden: true,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		// Its standard error may be the agent's, which may be gone.
		signal.Ignore(syscall.SIGPIPE)
		var spec guard.Spec
		if err := json.NewDecoder(a.in).Decode(&spec); err != nil {
			return usagef(nil, "standard input has nothing to guard: %v", err)
		}
		if err := a.serveGuard(cmd.Context(), spec, dir, log); err != nil && !errors.Is(err, context.Canceled) {
			return failed("guard an instance", err)
		}
		return nil
	}
	cmd.Flags().StringVar(&dir, "dir", "", "where the agent looks for guards")
	cmd.Flags().StringVar(&log.Level, "log-level", "info", "the agent's")
	cmd.Flags().StringVar(&log.Format, "log-format", "text", "the agent's")
	return cmd
}

func (a *app) serveGuard(ctx context.Context, s guard.Spec, dir string, c config.Log) (err error) {
	log := logger(c).With("part", "guard")
	hv := hypervisor.New(hypervisor.Options{URI: s.URI, Log: log})
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := hv.Run(ctx); err != nil {
			log.Error("the connection to libvirt ended", "error", err)
		}
	})
	defer func() {
		cancel()
		running.Wait()
		err = errors.Join(err, hv.Close())
	}()
	return guard.Serve(ctx, guard.Begin(ctx, hv, s, log), dir, process.Finder{}.Runs, a.out)
}
