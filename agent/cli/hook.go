package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/boot"
	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/hook"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/hypervisor/process"
	"github.com/wherry-kvm/wherry/volume"
)

const (
	// hookTimeout is how long libvirt waits at most, whatever hangs.
	hookTimeout = 2500 * time.Millisecond
	// cleanTimeout bounds the work that libvirt does not wait for.
	cleanTimeout = 2 * time.Minute
)

// hookCommand is what libvirt runs for every instance that starts or ends. It
// fails nothing: a hook that does keeps instances from starting.
func (a *app) hookCommand() *cobra.Command {
	var options config.Options
	var clean bool
	cmd := &cobra.Command{
		Use:   "hook -- NAME OPERATION SUB-OPERATION EXTRA",
		Short: "Clean up after an instance that has ended; libvirt runs this",
		Long: `Clean up after an instance that has ended by itself, or by somebody else's hand.
Libvirt runs this from /etc/libvirt/hooks/qemu.d/wherry, with the domain's XML on
standard input. It tells the agent, and where that does not answer has another
process do it, from the record. It always succeeds.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if clean {
			return a.cleanDetached(cmd.Context(), options, args)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.runHook(cmd.Context(), options, args)
		}()
		timer := time.NewTimer(hookTimeout)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		}
		return nil
	}
	registerConfigFlags(cmd, &options)
	cmd.Flags().BoolVar(&clean, "clean", false, "do what is owed to PROJECT NAME UUID, which ended before CALLED")
	if err := cmd.Flags().MarkHidden("clean"); err != nil {
		panic(err) // the flag is defined one line above
	}
	return cmd
}

// runHook answers libvirt's call.
func (a *app) runHook(ctx context.Context, o config.Options, args []string) {
	call := hook.ParseArgs(args)
	if !call.Released() {
		return // without a look at anything: this is most calls
	}
	c := a.configOrDefault(o)
	h := hook.Hook{Records: record.Dir(filepath.Join(c.StateDir, "records")), Log: a.quietLog(),
		Called: called(), Detach: func(end hook.End) error { return detach(o, end) },
		Tell: func(ctx context.Context, r api.HookRequest) error {
			g, err := client.New("unix:"+c.Listen.Socket, client.TLS{})
			if err != nil {
				return err
			}
			defer g.Close()
			return g.Hook(ctx, r)
		}}
	if err := h.Run(ctx, call, a.in); err != nil {
		h.Log.Warn("the hook of libvirt", "error", err)
	}
}

// called is when libvirt made this process, however long it took to come here;
// 0 where that cannot be told.
func called() time.Duration {
	at, err := process.Own()
	if err != nil {
		return 0
	}
	return at
}

// detach starts a process that libvirt neither waits for nor ends with itself.
func detach(o config.Options, end hook.End) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"hook", "--clean"}
	if o.File != "" {
		args = append(args, "--config", o.File)
	}
	cmd := exec.Command(self, append(args, "--", end.Ref.Project, end.Ref.Name, end.UUID, end.At.String())...) //nolint:noctx // it outlives whoever starts it
	cmd.Dir = "/"
	// A session of its own, and none of libvirt's pipes: libvirt would read from
	// them until they are closed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// cleanDetached does what is owed. What fails stays noted, for the agent.
func (a *app) cleanDetached(ctx context.Context, o config.Options, args []string) error {
	if len(args) != 4 {
		return usagef(nil, "missing: PROJECT NAME UUID CALLED")
	}
	at, err := time.ParseDuration(args[3])
	if err != nil {
		return usagef(nil, "CALLED: %v", err)
	}
	c := a.configOrDefault(o)
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	place := shutdown.Place{Dir: c.StateDir}
	e := hook.Ending{ToRun: func(end hook.End) bool { return place.Marked() || boot.Owes(place, end.UUID, end.At) }, Since: process.Finder{}.Since,
		Cleaner: cleanup.Cleaner{Dir: filepath.Join(c.StateDir, "cleanup"),
			Records: record.Dir(filepath.Join(c.StateDir, "records")), Runs: process.Finder{}.Runs, Log: a.quietLog(), Now: time.Now,
			Targets: hook.WithoutLibvirt{Targets: connectors(c).Service(volume.Exec{}, nil)}}}
	if err := e.Clean(ctx, hook.End{Ref: api.Ref{Project: args[0], Name: args[1]}, UUID: args[2], At: at}); err != nil {
		return failed("clean up", err)
	}
	return nil
}
