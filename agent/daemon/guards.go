package daemon

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/util"

	"github.com/wherry-kvm/wherry/agent/guard"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/http/api"
)

// guards sets the guards of this host's migrations, and lifts those that an agent
// which was killed has left.
func (d *daemon) guards() migrate.Guards {
	g := guards{URI: d.config.Hypervisor.URI, Keeper: &guard.Keeper{Dir: filepath.Join(d.config.StateDir, "guards"), Log: d.log.With("part", "guard")}}
	self, err := os.Executable()
	if err != nil {
		d.log.Error("no migration is guarded: this program does not know its own file", "error", err)
		return nil
	}
	g.Apart = apart()
	g.Command = []string{self, "guard", "--dir", g.Dir, "--log-level", d.config.Log.Level, "--log-format", d.config.Log.Format}
	g.Sweep(func(operation string) bool {
		op, err := d.ops.Get(context.Background(), operation)
		return err == nil && (!op.Ended() || op.Status == api.StatusNeedsDecision)
	})
	return g
}

// apart is a command that runs another one where systemd does not end it with
// the agent's service, and not before the instances when the host goes down.
func apart() []string {
	if !util.IsRunningSystemd() || os.Geteuid() != 0 {
		return nil
	}
	run, err := exec.LookPath("systemd-run")
	if err != nil {
		return nil
	}
	return []string{run, "--scope", "--quiet", "--collect", "--property=DefaultDependencies=no", "--description=Wherry keeps an instance from running twice", "--"}
}

// guards know which libvirt is this host's.
type guards struct {
	*guard.Keeper
	URI string
}

func (g guards) Set(ctx context.Context, s guard.Spec) error {
	s.URI = g.URI
	return g.Keeper.Set(ctx, s)
}
