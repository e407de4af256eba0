package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

const (
	// agentAccepts is how long the agent may take to accept a shutdown, and
	// agentSilent how long it may say nothing while it carries one out. After
	// that it is taken for lost: a host that goes down waits for nobody.
	agentAccepts = 6 * time.Second
	agentSilent  = 5 * time.Second
	askTimeout   = 2 * time.Second
	askEvery     = 200 * time.Millisecond
)

// errAgentLost: the agent accepted a shutdown and does not carry it out.
var errAgentLost = errors.New("the agent does not answer any more")

type shutdownFlags struct {
	timeout              time.Duration
	yes, offline, status bool
	config               config.Options
}

func (a *app) shutdownCommand() *cobra.Command {
	var s shutdownFlags
	cmd := &cobra.Command{
		Use:   "shutdown",
		Short: "Stop every instance of this host",
		Long: `Stop every instance of this host, the highest stop priority first, within one
deadline for all; see "wherry stop-policy". The host takes no instance until its
agent is started again.

The agent does it. Where it does not answer, or loses its store, this command
does it by itself, from libvirt and the records on this host: it needs neither
store nor network. Ctrl-C leaves what the agent does running ("wherry operation
cancel" calls it off), and calls off what this command does.`,
		Args: noArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if s.status {
			return a.shutdownStatus(cmd)
		}
		if !s.yes && !a.canAsk() {
			return usagef(cmd, "every instance of the host is stopped, and nobody can be asked here: say --yes")
		}
		if !s.yes {
			if err := a.confirm(cmd.Context(), "stop every instance of this host?"); err != nil {
				return failed("shut down", err)
			}
		}
		defer a.extend(s.timeout)()
		result, err := a.shutDown(cmd.Context(), s)
		return a.shutdownEnded(result, err)
	}
	f := cmd.Flags()
	f.DurationVar(&s.timeout, "timeout", 0, "for all instances together (default: what they ask for, 5m at most)")
	f.BoolVar(&s.yes, "yes", false, "do not ask")
	f.BoolVar(&s.offline, "offline", false, "do not ask the agent, which may be dead")
	f.BoolVar(&s.status, "status", false, "only show how far the shutdown is")
	registerConfigFlags(cmd, &s.config)
	return cmd
}

// shutDown has the agent do it, or does it.
func (a *app) shutDown(ctx context.Context, s shutdownFlags) (api.ShutdownResult, error) {
	began := a.now()
	if !s.offline {
		result, err := a.shutDownByAgent(ctx, s)
		if err == nil || ctx.Err() != nil || !a.canDoWithoutAgent(err) {
			return result, err
		}
		fmt.Fprintf(a.err, "the agent does not shut the host down (%v); doing it without the agent\n", err)
	}
	left := s.timeout
	if left > 0 {
		// The deadline is the one that was asked for, whoever keeps it.
		left = max(left-a.now().Sub(began), time.Second)
	}
	shown := map[string]string{}
	return a.offline(ctx, s.config, left, func(r api.ShutdownResult) { a.showShutdown(shown, r) })
}

// canDoWithoutAgent: this is the agent's host, and it has not said no.
func (a *app) canDoWithoutAgent(err error) bool {
	if !strings.HasPrefix(a.global.agent, "unix:") {
		return false
	}
	switch api.CodeOf(err) {
	case "bad-request", "forbidden", "unauthorized", "idempotency-reuse":
		return false
	}
	return true
}

func (a *app) shutDownByAgent(ctx context.Context, s shutdownFlags) (api.ShutdownResult, error) {
	g, err := a.dial(a.global)
	if err != nil {
		return api.ShutdownResult{}, err
	}
	accept, cancel := context.WithTimeout(ctx, agentAccepts)
	defer cancel()
	op, err := g.Shutdown(accept, api.ShutdownRequest{Timeout: api.Duration(s.timeout)}, newKey())
	if err != nil {
		return api.ShutdownResult{}, err
	}
	if op.ID == "" {
		fmt.Fprintln(a.err, "the agent's store takes no operation; the agent goes on without it")
	}
	return a.followShutdown(ctx, g)
}

// followShutdown looks until it is over. It follows the shutdown and not its
// operation, which may be in no store.
func (a *app) followShutdown(ctx context.Context, g agent) (api.ShutdownResult, error) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	shown, heard := map[string]string{}, time.Now()
	for {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		status, err := g.ShutdownStatus(ask)
		cancel()
		// One that was restarted in the middle knows nothing until it goes on.
		if err == nil && (status.Running || status.Result != nil) {
			heard = time.Now()
			if status.Result != nil {
				a.showShutdown(shown, *status.Result)
			}
			if !status.Running {
				return *status.Result, nil
			}
		}
		if time.Since(heard) > a.silence {
			return api.ShutdownResult{}, errAgentLost
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return api.ShutdownResult{}, fmt.Errorf("%w; the agent goes on", context.Cause(ctx))
		}
	}
}

// showShutdown prints what has changed for each instance.
func (a *app) showShutdown(shown map[string]string, r api.ShutdownResult) {
	for _, i := range r.Instances {
		if text := shutdownLine(i); text != shown[i.UUID] {
			shown[i.UUID] = text
			fmt.Fprintln(a.err, text)
		}
	}
}

func shutdownLine(i api.ShutdownInstance) string {
	text := fmt.Sprintf("%s: %s", api.Ref{Project: i.Project, Name: i.Name}, i.Outcome)
	if i.Rung != "" {
		text += fmt.Sprintf(" (%s)", i.Rung)
	}
	return text
}

func (a *app) shutdownStatus(cmd *cobra.Command) error {
	g, err := a.dial(a.global)
	if err != nil {
		return usage(cmd, err)
	}
	status, err := g.ShutdownStatus(cmd.Context())
	if err != nil {
		return failed("show the shutdown", err)
	}
	return a.print(status, func(w io.Writer) {
		switch {
		case status.Result == nil && !status.Running:
			fmt.Fprintln(w, "this host is not being shut down")
		case status.Running:
			fmt.Fprintln(w, "this host is being shut down")
		}
		if status.Result != nil {
			shutdownTable(w, *status.Result)
		}
	})
}

func (a *app) shutdownEnded(r api.ShutdownResult, err error) error {
	if err != nil {
		return failed("shut down", err)
	}
	if err := a.print(r, func(w io.Writer) { shutdownTable(w, r) }); err != nil {
		return err
	}
	if n := r.Failed(); n > 0 {
		return &failure{what: "shut down", err: fmt.Errorf("%d of %d instances are not down", n, len(r.Instances)), tried: true}
	}
	return nil
}

func shutdownTable(w io.Writer, r api.ShutdownResult) {
	if len(r.Instances) == 0 {
		fmt.Fprintln(w, "no instance ran")
	} else {
		fmt.Fprintln(w, "NAME\tPRIORITY\tOUTCOME\tBY\tTOOK\tNOTE")
	}
	for _, i := range r.Instances {
		notes := i.Warnings
		if i.Error != "" {
			notes = append([]string{i.Error}, notes...)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", api.Ref{Project: i.Project, Name: i.Name}, i.Priority, i.Outcome, i.Rung,
			i.Took.Std().Round(100*time.Millisecond), strings.Join(notes, "; "))
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
}

type shutdownCalls interface {
	Shutdown(ctx context.Context, r api.ShutdownRequest, key string) (api.Operation, error)
	ShutdownStatus(ctx context.Context) (api.Shutdown, error)
	SetStopPolicy(ctx context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error)
}

var _ shutdownCalls = (*client.Client)(nil)
