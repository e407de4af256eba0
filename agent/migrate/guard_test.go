package migrate_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/guard"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// barred tells whether a QEMU that wanted to take the image for writing would find
// that somebody does not share that.
func barred(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 201, Len: 1}
	must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock))
	return lock.Type != unix.F_UNLCK
}

// guards guard in this process.
type guards struct {
	host guard.Host
	set  map[string]*guard.Watch
}

func (g *guards) Set(_ context.Context, s guard.Spec) error {
	if g.set[s.Operation] == nil {
		g.set[s.Operation] = guard.Begin(context.Background(), g.host, s, slog.New(slog.DiscardHandler))
		<-g.set[s.Operation].Ready()
	}
	return nil
}

func (g *guards) Rest(operation string) guard.Hold {
	w := g.set[operation]
	if w == nil {
		return guard.Free
	}
	return w.Rest()
}

func (g *guards) Lift(operation string) {
	if w := g.set[operation]; w != nil {
		w.Lift()
		delete(g.set, operation)
	}
}

func (l *libvirt) HandedOver(context.Context, string) (<-chan error, error) { return l.handed, nil }

// handedOver has the instance handed over and the answer lost: libvirt tries to
// start it here again, and cannot take its disks back.
func handedOver(t *testing.T, w *world, renew func(in api.Incoming) (api.Incoming, error)) {
	w.libvirt.handed = make(chan error)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		if barred(t, w.disk) {
			t.Error("the disk is held before it was handed over: QEMU could not go on by itself")
		}
		w.libvirt.sent = true
		w.libvirt.handed <- nil
		must(t, w.libvirt.to("vm", hypervisor.Paused, "api-error"))
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = renew
		return errors.New("connection reset")
	}
}

// The answer that the destination runs it was lost: the copy here cannot be started
// while that is not known, and the migration has succeeded.
func TestLostAnswerStartsNoSecondCopy(t *testing.T) {
	w := newWorld(t)
	handedOver(t, w, func(in api.Incoming) (api.Incoming, error) {
		if !barred(t, w.disk) {
			t.Error("libvirt may start the instance here while the destination is asked")
		}
		in.Running, in.Domain = true, "running"
		return in, nil
	})
	w.succeeds(api.MigrateRequest{})
	if w.exists(w.disk) || w.libvirt.state("vm") != "" {
		t.Errorf("the source has still %q, its volume: %v", w.libvirt.state("vm"), w.exists(w.disk))
	}
}

// The destination is rid of it: it goes on here, as libvirt would have had it.
func TestHeldCopyGoesOnWhereTheDestinationHasNone(t *testing.T) {
	w := newWorld(t)
	handedOver(t, w, func(in api.Incoming) (api.Incoming, error) { return in, nil })
	w.libvirt.resumes = func() {
		if barred(t, w.disk) {
			t.Error("it was to go on while its disk is held")
		}
	}
	w.fails(api.MigrateRequest{}, api.StatusFailed, "migration-failed", "perform")
	if got := w.libvirt.state("vm"); got != hypervisor.Running || barred(t, w.disk) {
		t.Errorf("the instance is %q, its disk is held: %v; want it to run on", got, barred(t, w.disk))
	}
}

// One that was paused before it moved is left as it was.
func TestPausedInstanceIsNotStartedByAGuard(t *testing.T) {
	w := newWorld(t)
	d := w.instance.Domain
	d.State, d.Reason = hypervisor.Paused, "user"
	w.instance.Domain = d
	w.libvirt.set(d)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error { return errors.New("connection reset") }
	w.fails(api.MigrateRequest{}, api.StatusFailed, "migration-failed", "perform")
	if got := w.libvirt.state("vm"); got != hypervisor.Paused {
		t.Errorf("the instance is %q; want it paused", got)
	}
}

// The destination was not heard for so long that it has taken the instance by
// itself, and it has gone down there since: it is the destination's all the same.
func TestTakenByTheDestinationMeanwhile(t *testing.T) {
	w := newWorld(t)
	handedOver(t, w, func(in api.Incoming) (api.Incoming, error) {
		in.State, in.Domain = "committed", "shutoff"
		return in, nil
	})
	w.succeeds(api.MigrateRequest{})
	if w.exists(w.disk) || w.libvirt.state("vm") != "" {
		t.Errorf("the source has still %q, its volume: %v", w.libvirt.state("vm"), w.exists(w.disk))
	}
}

// The agent stops, and the answer is lost while there is none: the disk is held all
// the same, until the next agent knows where the instance is.
func TestNextAgentTakesAGuardOver(t *testing.T) {
	for destination, ends := range map[string]struct {
		status string
		stays  bool
	}{"running": {api.StatusSucceeded, false}, "": {api.StatusFailed, true}} {
		t.Run("destination "+destination, func(t *testing.T) {
			w := newWorld(t)
			w.libvirt.handed = make(chan error)
			id := w.moving(api.MigrateRequest{})
			w.libvirt.handed <- nil
			w.libvirt.sent = true
			must(t, w.libvirt.to("vm", hypervisor.Paused, "api-error"))
			w.here(true, destination)
			held, asked := false, false
			renew := w.peer.renew
			w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
				if !asked {
					held, asked = barred(t, w.disk), true
				}
				return renew(in)
			}
			if op := w.resume(id); op.Status != ends.status {
				t.Errorf("it is %s: %+v; want %s", op.Status, op.Error, ends.status)
			}
			if !held {
				t.Error("libvirt could have started it here while the destination was asked")
			}
			if runs := w.libvirt.state("vm") == hypervisor.Running; runs != ends.stays || w.exists(w.disk) != ends.stays {
				t.Errorf("it runs here: %v, its disk is here: %v; want %v", runs, w.exists(w.disk), ends.stays)
			}
			if ends.stays && barred(t, w.disk) {
				t.Error("its disk is held on")
			}
		})
	}
}

// Libvirt's call was lost, and it carries the migration on without its caller: the
// handover that is yet to come is heard.
func TestGuardListensForAsLongAsLibvirtGoesOn(t *testing.T) {
	w := newWorld(t)
	w.libvirt.handed = make(chan error, 1)
	looks := 0
	w.mover.job = func() hypervisor.Job {
		w.mover.mu.Lock()
		defer w.mover.mu.Unlock()
		switch looks++; {
		case looks < 4:
			return hypervisor.Job{Kind: hypervisor.JobOutgoing, Phase: hypervisor.PhaseMemory}
		case looks == 4:
			w.libvirt.mu.Lock()
			w.libvirt.sent = true
			w.libvirt.mu.Unlock()
			w.libvirt.handed <- nil
			for end := time.Now().Add(deadline); !barred(t, w.disk) && time.Now().Before(end); {
				runtime.Gosched()
			}
			must(t, w.libvirt.to("vm", hypervisor.Paused, "api-error"))
		}
		return hypervisor.Job{Kind: hypervisor.JobNone}
	}
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.peer.mu.Lock()
		defer w.peer.mu.Unlock()
		w.peer.renew = func(in api.Incoming) (api.Incoming, error) {
			if w.libvirt.state("vm") == hypervisor.Paused {
				if !barred(t, w.disk) {
					t.Error("libvirt may start the instance here while the destination is asked")
				}
				in.Running, in.Domain = true, "running"
			}
			return in, nil
		}
		return hypervisor.ErrUnknownOutcome
	}
	w.succeeds(api.MigrateRequest{})
}

// Libvirt here is away to the end: when it comes back it may start the instance,
// and nobody has decided yet that it is to run here.
func TestGuardStaysWhereLibvirtIsSilent(t *testing.T) {
	w := newWorld(t)
	w.options.DecisionTimeout = time.Millisecond
	w.restart()
	w.libvirt.handed = make(chan error)
	down := func(is bool) {
		w.libvirt.mu.Lock()
		defer w.libvirt.mu.Unlock()
		w.libvirt.down = is
	}
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		w.libvirt.sent = true
		w.libvirt.handed <- nil
		must(t, w.libvirt.to("vm", hypervisor.Paused, "api-error"))
		down(true)
		return hypervisor.ErrDown
	}
	op := w.migrated(api.MigrateRequest{})
	if op.Status != api.StatusNeedsDecision || !barred(t, w.disk) {
		t.Fatalf("operation %s, %+v; its disk is held: %v", op.Status, op.Error, barred(t, w.disk))
	}
	down(false)
	w.settledAs(op.ID, api.SideSource, "", api.StatusFailed)
	if w.libvirt.state("vm") != hypervisor.Running || barred(t, w.disk) {
		t.Errorf("the instance is %q, its disk is held: %v; want it to run on", w.libvirt.state("vm"), barred(t, w.disk))
	}
}

// It was paused when the migration was asked for, and somebody has resumed it
// while the destination prepared: libvirt would start it again.
func TestGuardOfWhatRunsByNow(t *testing.T) {
	w := newWorld(t)
	d := w.instance.Domain
	d.State, d.Reason = hypervisor.Paused, "user"
	w.instance.Domain = d
	all := w.options.Guards.(*guards)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		if len(all.set) != 1 {
			t.Errorf("%d guards are set; want one", len(all.set))
		}
		w.libvirt.gone("vm")
		return nil
	}
	w.succeeds(api.MigrateRequest{})
}

// Libvirt has tried to start it again and could not, and the guard that kept it
// from that did not live to tell.
func TestGoesOnWhoeverKeptItFromThat(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		must(t, w.libvirt.to("vm", hypervisor.Paused, "api-error"))
		return errors.New("connection reset")
	}
	w.fails(api.MigrateRequest{}, api.StatusFailed, "migration-failed", "perform")
	if got := w.libvirt.state("vm"); got != hypervisor.Running {
		t.Errorf("the instance is %q; want it to run on", got)
	}
}

// The guest was handed over, has shut down at the destination, and the QEMU here has
// ended with libvirt away: the guard has seen to it that nothing was written here
// since, and nobody has to be asked.
func TestGoneDownOnBothHosts(t *testing.T) {
	w := newWorld(t)
	handedOver(t, w, func(in api.Incoming) (api.Incoming, error) {
		in.Domain = "shutoff"
		return in, nil
	})
	hands := w.mover.migrate
	w.mover.migrate = func(ctx context.Context, p hypervisor.MigrateParams) error {
		err := hands(ctx, p)
		must(t, w.libvirt.to("vm", hypervisor.Shutoff, "crashed"))
		return err
	}
	w.succeeds(api.MigrateRequest{})
	if w.exists(w.disk) {
		t.Error("the source has still its volume")
	}
}
