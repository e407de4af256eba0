package incoming_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// A lost answer costs nothing: the same call again gives the same reservation.
func TestReserve(t *testing.T) {
	w := newWorld(t)
	r := w.request()
	first := w.ready(r)
	if len(first.Disks) != 1 || first.Disks[0].Path != r.Disks[0].Place.Path || !first.Lease.Equal(w.clock().Add(lease)) || first.LibvirtURI == "" {
		t.Errorf("reservation %+v", first)
	}
	l, err := volume.Inspect(first.Disks[0].Path, volume.FormatQcow2)
	if err != nil || l.VirtualSize != 4*mib || l.BackingFile != "" {
		t.Errorf("volume %+v, %v", l, err)
	}
	w.ready(r)
	w.wantFiles("vm.qcow2")
	w.wantJournal(1)
	if w.runner.runs != 1 {
		t.Errorf("qemu-img ran %d times; want once", w.runner.runs)
	}
}

// Where nothing has to be filled the first answer says that all is ready: the
// source, and the instance with it, need not wait to ask again.
func TestReserveAnswersWhenReady(t *testing.T) {
	w := newWorld(t)
	in, err := w.Reserve(t.Context(), w.request())
	must(t, err)
	if in.State != "ready" {
		t.Errorf("state %q; want it ready at once", in.State)
	}
}

func TestReserveNeedsItsNames(t *testing.T) {
	w := newWorld(t)
	_, err := w.Reserve(t.Context(), api.IncomingRequest{Name: "vm", UUID: uuid})
	wantProblem(t, err, "bad-request")
	_, err = w.Get(t.Context(), "none")
	wantProblem(t, err, "not-found")
	_, err = w.Renew(t.Context(), "none")
	wantProblem(t, err, "not-found")
	_, err = w.Commit(t.Context(), "none", api.CommitRequest{})
	wantProblem(t, err, "not-found")
	must(t, w.Remove(t.Context(), "none"))
}

// A file that has the wanted name already is somebody's.
func TestReserveBesideAnotherFile(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.pool, "vm.qcow2")
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	in := w.ready(w.request())
	if want := filepath.Join(w.pool, "vm-zzabcdef.qcow2"); in.Disks[0].Path != want {
		t.Errorf("volume at %s; want %s", in.Disks[0].Path, want)
	}
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles("vm.qcow2")
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the other file holds %q", b)
	}
}

func TestReserveIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world, r *api.IncomingRequest)
		code   string
		detail string
	}{
		{"a folder that is no pool", func(w *world, r *api.IncomingRequest) {
			r.Disks[0].Place.Path = filepath.Join(w.t.TempDir(), "vm.qcow2")
		}, "refused", "not the folder of an active pool"},
		{"a folder below a pool", func(w *world, r *api.IncomingRequest) {
			must(w.t, os.Mkdir(filepath.Join(w.other, "sub"), 0o700))
			r.Disks[0].Place.Path = filepath.Join(w.other, "sub", "vm.qcow2")
		}, "refused", "not the folder of an active pool"},
		{"the base has changed since the plan", func(w *world, r *api.IncomingRequest) {
			base := qcow2(w.t, filepath.Join(w.other, "base.qcow2"), "", "1")
			r.Disks[0].Place.Backing, r.Disks[0].Place.Chain = &base, []api.Layer{base}
			qcow2(w.t, base.Path, "", "2")
		}, "chain-unsafe", "has changed since the plan"},
		{"the base is not digested", func(w *world, r *api.IncomingRequest) {
			base := qcow2(w.t, filepath.Join(w.other, "base.qcow2"), "", "1")
			base.Digest = ""
			r.Disks[0].Place.Backing, r.Disks[0].Place.Chain = &base, []api.Layer{base}
		}, "chain-unsafe", ""},
		{"the seed has changed since the plan", func(w *world, r *api.IncomingRequest) {
			base := qcow2(w.t, filepath.Join(w.other, "base.qcow2"), "", "1")
			r.Disks[0].Seed = &api.Seed{From: "destination", Chain: []api.Layer{base}}
			qcow2(w.t, base.Path, "", "2")
		}, "chain-unsafe", "has changed since the plan"},
		{"a seed of nothing", func(_ *world, r *api.IncomingRequest) { r.Disks[0].Seed = &api.Seed{From: "destination"} }, "peer-failed", "no layers"},
		{"no space", func(w *world, _ *api.IncomingRequest) {
			w.runner.before = func(int) error { return &volume.CommandError{Name: "qemu-img create", Err: unix.ENOSPC} }
		}, "no-space", "no space left"},
		{"the second of two disks", func(w *world, r *api.IncomingRequest) {
			second := r.Disks[0]
			second.Target, second.Place.Path = "vdb", filepath.Join(w.pool, "vm-b.qcow2")
			r.Disks = append(r.Disks, second)
			w.runner.before = func(n int) error {
				if n == 2 {
					return errors.New("qemu-img is broken")
				}
				return nil
			}
		}, "peer-failed", "qemu-img is broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.request()
			c.change(w, &r)
			in := w.settled(r)
			if in.State != "failed" || in.Error == nil {
				t.Fatalf("reservation %s", in.State)
			}
			if p := wantProblem(t, in.Error, c.code, c.detail); p.Disk != r.Disks[len(r.Disks)-1].Target {
				t.Errorf("disk %q", p.Disk)
			}
			w.wantFiles()
			if _, err := w.Reserve(t.Context(), r); api.CodeOf(err) != c.code {
				t.Errorf("the same call again: %v; want the same answer", err)
			}
			// Taken back, it may be asked for anew.
			must(t, w.Remove(t.Context(), opID))
			w.runner.before = nil
			w.ready(w.request())
		})
	}
}

// One instance arrives once.
func TestReserveTheSameNameTwice(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	second := w.request()
	second.Operation = "01JZZZZZZZZZZZZZZZZZ000000"
	_, err := w.Reserve(t.Context(), second)
	if p := wantProblem(t, err, "busy", `"vm"`); p.Operation != opID {
		t.Errorf("operation %q; want the one that holds it", p.Operation)
	}
	second.Project = "blue"
	second.Disks = nil
	if _, err := w.Reserve(t.Context(), second); err != nil {
		t.Errorf("of another project: %v", err)
	}
	w.arrive(hypervisor.Domain{State: hypervisor.Running})
	third := w.request()
	third.Operation, third.UUID = "01JZZZZZZZZZZZZZZZZZ000001", "other"
	_, err = w.Reserve(t.Context(), third)
	wantProblem(t, err, "conflict", uuid)
}

func TestReserveLinked(t *testing.T) {
	w := newWorld(t)
	base := qcow2(t, filepath.Join(w.other, "base.qcow2"), "", "1")
	base.Template = "rocky9"
	r := w.request()
	r.Disks[0].Place.Backing, r.Disks[0].Place.Chain = &base, []api.Layer{base}
	in := w.ready(r)
	chain, err := volume.Walk(in.Disks[0].Path, volume.FormatQcow2, []string{w.other})
	if err != nil || len(chain) != 2 || chain[1].Path != base.Path {
		t.Errorf("chain %+v, %v", chain, err)
	}
	if w.reg.refs[in.Disks[0].Path] != "rocky9" || len(w.reg.refs) != 1 {
		t.Errorf("refs %v; want the volume's", w.reg.refs)
	}
	must(t, w.Remove(t.Context(), opID))
	if len(w.reg.refs) != 0 {
		t.Errorf("refs %v", w.reg.refs)
	}
}

// The frozen layers are filled from the destination's own copy.
func TestReserveSeeded(t *testing.T) {
	w := newWorld(t)
	base := qcow2(t, filepath.Join(w.other, "base.qcow2"), "", "7")
	r := w.request()
	r.Disks[0].Seed = &api.Seed{From: "destination", Chain: []api.Layer{base}}
	in := w.ready(r)
	if !in.Disks[0].Filled {
		t.Errorf("place %+v; want it filled", in.Disks[0])
	}
	qemuImg(t, "compare", "-q", "-f", "qcow2", "-F", "qcow2", base.Path, in.Disks[0].Path)
	if l, err := volume.Inspect(in.Disks[0].Path, volume.FormatQcow2); err != nil || l.BackingFile != "" {
		t.Errorf("volume %+v, %v; want it to stand alone", l, err)
	}
}

// A connected target is there already: nothing is made.
func TestReserveOnATarget(t *testing.T) {
	w := newWorld(t)
	r := w.request()
	r.Disks[0].Existing, r.Disks[0].Place = true, api.DiskPlace{Kind: "network", Path: "iscsi://h:3260/iqn.x/1", Format: "raw"}
	r.Targets = []api.Target{{Type: "iscsi", Portal: "h:3260", IQN: "iqn.x", LUN: 1}}
	if in := w.ready(r); in.Disks[0].Path != "iscsi://h:3260/iqn.x/1" {
		t.Errorf("place %+v", in.Disks[0])
	}
	w.wantFiles()
	must(t, w.Remove(t.Context(), opID))
	if len(w.targets) != 1 || w.targets[0].Add || w.targets[0].Targets[0].IQN != "iqn.x" {
		t.Errorf("targets %+v; want it disconnected", w.targets)
	}
}

func TestReserveStages(t *testing.T) {
	for _, c := range []struct {
		name   string
		staged func(w *world, base api.Layer) (string, error)
		code   string
	}{
		{"brought", func(w *world, base api.Layer) (string, error) {
			path := filepath.Join(w.other, "staged.qcow2")
			b, err := os.ReadFile(base.Path)
			must(w.t, err)
			return path, os.WriteFile(path, b, 0o600)
		}, ""},
		{"arrived with other bytes", func(w *world, _ api.Layer) (string, error) {
			return qcow2(w.t, filepath.Join(w.other, "staged.qcow2"), "", "9").Path, nil
		}, "template-failed"},
		{"not served", func(*world, api.Layer) (string, error) { return "", errors.New("410 gone") }, "template-failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			base := qcow2(t, filepath.Join(t.TempDir(), "at-the-source.qcow2"), "", "1")
			w.reg.stage = func(context.Context, api.StageLayer) (string, error) { return c.staged(w, base) }
			r := w.request()
			r.Disks[0].Place.Backing, r.Disks[0].Place.Chain = &base, []api.Layer{base}
			r.Stage = []api.StageLayer{{Template: "rocky9", Layer: base, Pool: "other", SyncFrom: "https://a"}}
			in := w.settled(r)
			if c.code != "" {
				wantProblem(t, in.Error, c.code, "rocky9")
				w.wantFiles()
				return
			}
			if in.State != "ready" || in.Disks[0].Chain[0].Path != filepath.Join(w.other, "staged.qcow2") {
				t.Fatalf("reservation %s, %v, places %+v", in.State, in.Error, in.Disks)
			}
			l, err := volume.Inspect(in.Disks[0].Path, volume.FormatQcow2)
			if err != nil || !strings.HasSuffix(l.BackingFile, "staged.qcow2") {
				t.Errorf("volume %+v, %v; want it on this host's copy", l, err)
			}
		})
	}
}

// File systems without a rename that replaces nothing get their volumes named,
// too, and nothing there is replaced either.
func TestRelink(t *testing.T) {
	w := newWorld(t)
	from, taken, to := filepath.Join(w.pool, "from"), filepath.Join(w.pool, "taken"), filepath.Join(w.pool, "to")
	must(t, errors.Join(os.WriteFile(from, []byte("ours"), 0o600), os.WriteFile(taken, []byte("theirs"), 0o600)))
	if err := incoming.Relink(from, taken); !errors.Is(err, unix.EEXIST) {
		t.Errorf("error %v; want that it exists", err)
	}
	must(t, incoming.Relink(from, to))
	w.wantFiles("taken", "to")
	if got, err := os.ReadFile(taken); err != nil || string(got) != "theirs" {
		t.Errorf("it has become %q, %v", got, err)
	}
}
