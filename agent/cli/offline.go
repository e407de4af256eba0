package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/offline"
	agenttarget "github.com/wherry-kvm/wherry/agent/target"
	"github.com/wherry-kvm/wherry/http/api"
)

// shutDownOffline shuts the host down within this process.
func (a *app) shutDownOffline(ctx context.Context, o config.Options, timeout time.Duration, tell func(api.ShutdownResult)) (api.ShutdownResult, error) {
	c := a.configOrDefault(o)
	return offline.Shutdown(ctx, offline.Options{StateDir: c.StateDir, URI: c.Hypervisor.URI, Connectors: connectors(c), Log: a.quietLog(), Tell: tell}, timeout)
}

// configOrDefault: a fault in the configuration keeps no host up.
func (a *app) configOrDefault(o config.Options) config.Config {
	c, err := config.Load(o)
	if err != nil {
		fmt.Fprintf(a.err, "the configuration is not usable, going on with the defaults: %v\n", err)
		return config.Default()
	}
	return c
}

// quietLog shows what went wrong; the rest is in what the command prints.
func (a *app) quietLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func connectors(c config.Config) agenttarget.Connectors {
	return agenttarget.Connectors{FileFolders: c.Targets.FileFolders, ISCSITimeout: c.ISCSI.Timeout,
		PowerFlexRoot: c.PowerFlex.Root, PowerFlexRescan: c.PowerFlex.Rescan, PowerFlexTimeout: c.PowerFlex.Timeout}
}

const (
	// extendEvery is how often systemd is asked for extendBy more time
	// (sd_notify(3), EXTEND_TIMEOUT_USEC).
	extendEvery = 10 * time.Second
	extendBy    = 45 * time.Second
	// extendBeyond is for what follows the deadline: power is cut, and storage
	// released. After that systemd is not kept any longer.
	extendBeyond  = 3 * time.Minute
	extendDefault = 5 * time.Minute
)

// extend asks systemd, where it has started this, for more time until the
// returned function is called.
func (a *app) extend(timeout time.Duration) (end func()) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return func() {}
	}
	if timeout == 0 {
		timeout = extendDefault
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout+extendBeyond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(extendEvery)
		defer tick.Stop()
		for {
			if _, err := systemd.SdNotify(false, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=stopping instances", extendBy.Microseconds())); err != nil {
				fmt.Fprintf(a.err, "systemd cannot be asked for time: %v\n", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}
