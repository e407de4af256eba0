package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// Main runs one command and returns its exit status: 0 done, 1 failed, 2
// usage, 3 refused, 4 agent unreachable.
func Main(args []string, in io.Reader, out, err io.Writer) int {
	a := newApp(in, out, err)
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(received)
	return a.run(args, received)
}

// app is what the commands of one run share.
type app struct {
	in       io.Reader
	out, err io.Writer
	global   globalFlags
	signals  *signals
	now      func() time.Time
	dial     func(globalFlags) (agent, error)
	// silence is how long an agent that shuts its host down may say nothing.
	silence time.Duration
	// offline shuts this host down without an agent.
	offline func(ctx context.Context, o config.Options, timeout time.Duration, tell func(api.ShutdownResult)) (api.ShutdownResult, error)
	// running is set once the command line was understood: an error from
	// before is a mistake in the usage.
	running bool
}

func newApp(in io.Reader, out, err io.Writer) *app {
	a := &app{in: in, out: out, err: err, now: time.Now, dial: dialAgent, silence: agentSilent}
	a.offline = a.shutDownOffline
	return a
}

func (a *app) run(args []string, received <-chan os.Signal) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a.signals = watchSignals(ctx, cancel, received)
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	command, err := root.ExecuteContextC(ctx)
	if err != nil && !a.running {
		err = usage(command, err)
	}
	a.report(err)
	return exitStatus(err)
}

func (a *app) rootCommand() *cobra.Command {
	serve := newServeCommand()
	root := &cobra.Command{
		Use:   "wherry",
		Short: "Carry KVM instances between hosts",
		Long: `Wherry is the node agent that carries KVM instances between hosts.

"wherry serve" is the agent; without arguments wherry does the same. The other
commands talk to a running agent.`,
		Args: noArgs,
		// The agent alone needs no flag and no configuration.
		RunE: func(cmd *cobra.Command, _ []string) error {
			serve.SetContext(cmd.Context())
			return serve.RunE(serve, nil)
		},
		PersistentPreRun:  func(*cobra.Command, []string) { a.running = true },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	a.global.register(root)
	root.AddCommand(serve)
	root.AddCommand(a.instanceCommands()...)
	root.AddCommand(a.powerCommands()...)
	root.AddCommand(a.migrationCommands()...)
	root.AddCommand(
		a.rebuildCommand(), a.templateCommand(), a.targetCommand(), a.operationCommand(), a.eventsCommand(),
		a.chainCommand(), a.configCommand(), a.versionCommand(), a.shutdownCommand(), a.stopPolicyCommand(), a.bandwidthCommand(), a.hookCommand(), a.guardCommand(),
	)
	return root
}
