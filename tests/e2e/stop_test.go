//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

func seconds(n int) api.Duration { return api.Duration(time.Duration(n) * time.Second) }

// A guest that is asked shuts down in order; one that is down already is
// success; and started again it is as it was.
func TestStopInOrder(t *testing.T) {
	s := begin(t).toStop("vm").start()
	if r := s.stop(api.StopRequest{}, api.RungACPI); len(r.Rungs) != 1 || r.Rungs[0].Tries != 1 || r.Rungs[0].Took <= 0 {
		t.Errorf("rungs %+v; want one press", r.Rungs)
	}
	s.down(true)
	s.stop(api.StopRequest{}, api.RungAlready)
	s.stop(api.StopRequest{Force: true}, api.RungAlready)
	s.down(true)
	before := s.boot
	s.start()
	s.line("clean vda " + before)
	s.runsOn()
}

// The guest's agent is asked first, where it answers. One that does not obey,
// or does not answer, leaves it to the power button.
func TestStopByAgent(t *testing.T) {
	w := begin(t)
	obeys := w.toStop("obeys", extra(agentPort)).start()
	obeys.stop(api.StopRequest{}, api.RungAgent)
	obeys.line("AGENT shutdown")
	obeys.down(true)

	mute := w.toStop("mute", extra(agentPort), options("wherry.agent=mute")).start()
	if r := mute.stop(api.StopRequest{Timeout: seconds(15)}, api.RungACPI); len(r.Rungs) != 2 || r.Rungs[0].Rung != api.RungAgent {
		t.Errorf("rungs %+v; want the agent before the button", r.Rungs)
	}
	mute.down(true)

	hangs := w.toStop("hangs", extra(agentPort), options("wherry.agent=hang")).start()
	if r := hangs.stop(api.StopRequest{Timeout: seconds(30)}, api.RungACPI); len(r.Rungs) != 1 {
		t.Errorf("rungs %+v; want the button alone", r.Rungs)
	}
	hangs.down(true)
}

// A guest that ignores the button runs on, unless it may be forced, and the
// metrics tell which was which.
func TestStopIgnored(t *testing.T) {
	s := begin(t).toStop("vm", options("wherry.deaf=-1")).start()
	forced := func() float64 { return s.scraped(s.on)["wherry_forced_stops_total"] }
	before := forced()
	op := s.fails(s.stopping(api.StopRequest{Timeout: seconds(7)}), "timeout")
	if op.Error.Hint == "" || op.Error.Phase != "stop" {
		t.Errorf("problem %s; want the phase, and what to do", describe(op.Error))
	}
	s.line("POWERKEY ignored")
	s.runsOn()
	if got := forced(); got != before {
		t.Errorf("forced stops %v; want none", got-before)
	}
	r := s.stop(api.StopRequest{Timeout: seconds(3), OnTimeout: "force"}, api.RungQuit)
	if len(r.Rungs) != 2 || r.Rungs[0].Rung != api.RungACPI || r.Rungs[0].Took.Std() < 3*time.Second-100*time.Millisecond {
		t.Errorf("rungs %+v; want the guest to have had its time", r.Rungs)
	}
	s.down(false)
	if got := forced(); got != before+1 || s.scraped(s.on)[`wherry_stop_seconds_count{rung="quit"}`] < 1 {
		t.Errorf("forced stops %v; want one", got-before)
	}
}

// A press during the boot is lost: the button is pressed again.
func TestStopWhileItBoots(t *testing.T) {
	s := begin(t).toStop("vm")
	op, err := s.on.api.Start(s.ctx, ref(s.name), "")
	s.run(s.on, op, err)
	s.connect()
	r := s.stop(api.StopRequest{}, api.RungACPI)
	if r.Rungs[0].Tries < 2 {
		t.Logf("rungs %+v: this boot took the first press", r.Rungs)
	}
	boots, err := s.guest.Boots(s.ctx)
	s.must(err)
	s.boot = strings.Join(boots, "")
	s.down(true)
}

// What a guest is paused for decides: a user's pause ends by the newer wish, an
// I/O error does not, and says so at once.
func TestStopPaused(t *testing.T) {
	w := begin(t)
	s := w.toStop("user").start()
	w.exec(s.on, "virsh", "-q", "suspend", s.name)
	s.stop(api.StopRequest{}, api.RungACPI)
	s.down(true)

	// A disk that fills up: QEMU stops the guest, which would lose the write.
	full := w.toStop("full", func(d *harness.Domain) {
		d.Options = "wherry.pace=2ms"
		d.Disks = append(d.Disks, harness.Disk{Target: "vdb", Source: "/srv/second/full/vdb.qcow2"})
	})
	w.exec(w.a, "sh", "-c", "mkdir -p /srv/second/full && mount -t tmpfs -o size=3M tmpfs /srv/second/full")
	w.cleanup("unmounting", func(ctx context.Context) error {
		_, err := w.a.Exec(ctx, "sh", "-c", "umount -l /srv/second/full; rmdir /srv/second/full; true")
		return err
	})
	w.volume(w.a, "/srv/second/full/vdb.qcow2", "qcow2")
	full.start()
	w.must(harness.Until(w.ctx, "the guest to be paused by an I/O error", func(ctx context.Context) error {
		out, err := w.a.Virsh(ctx, "domstate", "--reason", full.name)
		if err == nil && !strings.Contains(out, "I/O error") {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	}))
	full.within(time.Minute, "saying that it cannot answer", func() { full.fails(full.stopping(api.StopRequest{}), "conflict") })
	if out, err := w.a.Virsh(w.ctx, "domstate", "--reason", full.name); err != nil || !strings.Contains(out, "I/O error") {
		t.Errorf("it is %s (%v); want it as it was", out, err)
	}
	full.within(time.Minute, "forcing it", func() { full.stop(api.StopRequest{OnTimeout: "force"}, api.RungQuit) })
	full.down(false)
}

// A QEMU that is stopped by SIGSTOP answers nothing. It holds up nobody else,
// and is killed where that is allowed.
func TestStopOfAFrozenQEMU(t *testing.T) {
	w := begin(t)
	frozen, other := w.toStop("frozen", options("wherry.deaf=-1")).start(), w.toStop("other").start()
	w.must(frozen.signal(w.ctx, "STOP"))
	slow := frozen.stopping(api.StopRequest{Timeout: seconds(30)})
	other.stop(api.StopRequest{}, api.RungACPI)
	other.down(true)
	if op, err := w.a.api.Operation(w.ctx, slow); err != nil || op.Ended() {
		t.Errorf("operation %+v, error %v; want the frozen one to be waited for yet", op, err)
	}
	// Libvirt itself would have one wait for 30 s.
	frozen.within(15*time.Second, "listing the instances", func() {
		_, err := w.a.api.Instances(w.ctx, api.DefaultProject)
		w.must(err)
	})
	frozen.fails(slow, "timeout")
	w.must(frozen.signal(w.ctx, "CONT"))
	frozen.runsOn() // the press has arrived by now, and was ignored
	w.must(frozen.signal(w.ctx, "STOP"))
	if r := frozen.stop(api.StopRequest{Force: true}, api.RungKill); len(r.Rungs) != 3 {
		t.Errorf("rungs %+v; want quit, SIGTERM, SIGKILL", r.Rungs)
	}
	frozen.down(false)
}

// A guest that has suspended itself is woken: asleep it cannot be asked.
func TestStopSuspended(t *testing.T) {
	s := begin(t).toStop("vm").start()
	s.must(s.guest.Suspend(s.ctx, s.on.Host))
	s.must(harness.Until(s.ctx, "the guest to sleep", func(ctx context.Context) error {
		state, err := s.on.State(ctx, s.name)
		if err == nil && state != "pmsuspended" {
			err = errors.New(state)
		}
		return err
	}))
	s.stop(api.StopRequest{}, api.RungACPI)
	s.down(true)
}

// panics is a program for the first sector of a disk: it says by way of QEMU's
// panic device that it has crashed, and halts.
var panics = []byte{0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd}

// A guest that has crashed and is preserved, for somebody to look at it, has
// nobody left to ask: it is ended without waiting for its timeout.
func TestStopCrashed(t *testing.T) {
	w := begin(t)
	s := w.toStop("vm", extra(`<panic model='isa'/>`))
	sector := append(panics, make([]byte, 2*imageSize-len(panics))...)
	copy(sector[510:], "\x55\xaa")
	file := filepath.Join(w.a.Images(), s.name+".raw")
	w.must(os.WriteFile(file, sector, 0o600))
	w.exec(w.a, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", harness.ImagesPath+"/"+s.name+".raw", s.disk)
	w.must(os.Remove(file))
	x := kernelXML.ReplaceAllString(w.exec(w.a, "virsh", "dumpxml", "--inactive", s.name), "")
	w.must(w.a.Define(w.ctx, strings.Replace(x, "<on_crash>destroy<", "<on_crash>preserve<", 1)))
	op, err := w.a.api.Start(w.ctx, ref(s.name), "")
	w.run(w.a, op, err)
	s.connect()
	w.must(harness.Until(w.ctx, "the guest to crash", func(ctx context.Context) error {
		out, err := w.a.Virsh(ctx, "domstate", "--reason", s.name)
		if err == nil && !strings.HasPrefix(out, "crashed") {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	}))
	if r := s.stop(api.StopRequest{}, api.RungQuit); len(r.Rungs) != 1 {
		t.Errorf("rungs %+v; want nobody to have been asked", r.Rungs)
	}
	s.down(false)
}
