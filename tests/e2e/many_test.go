//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// Of two requests for one instance the second is told who holds it; the same
// request again is the same operation.
func TestTwoRequestsForOneInstance(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 16*mib)
	w.rate(w.a, slow)
	request := api.MigrateRequest{Destination: w.b.URL()}
	key := w.unique("key") + fmt.Sprint(time.Now().UnixNano())
	first, err := w.a.api.Migrate(w.ctx, ref(name), request, key)
	w.must(err)
	w.copying(w.a, first.ID)
	_, err = w.a.api.Migrate(w.ctx, ref(name), request, "")
	if p := w.problem(err, "busy"); p.Status != 409 || p.Operation != first.ID || !strings.Contains(p.Detail, first.ID) {
		t.Errorf("%s; want 409 that names operation %s", describe(p), first.ID)
	}
	again, err := w.a.api.Migrate(w.ctx, ref(name), request, key)
	if err != nil || again.ID != first.ID {
		t.Errorf("the same request again: operation %q, %v; want %s", again.ID, err, first.ID)
	}
	other := request
	other.Mode = api.ModeFull
	_, err = w.a.api.Migrate(w.ctx, ref(name), other, key)
	w.problem(err, "idempotency-reuse")
	w.must(w.a.Rate(w.ctx, "off"))
	w.moved(name, w.a, first.ID)
	// Even after the end, and though the instance is not here any more.
	again, err = w.a.api.Migrate(w.ctx, ref(name), request, key)
	if err != nil || again.ID != first.ID || again.Status != api.StatusSucceeded {
		t.Errorf("the same request after the end: %+v, %v; want operation %s, succeeded", again, err, first.ID)
	}
}

// Ten instances go at once, all arrive, and come back.
func TestTenInstancesAtOnceEachWay(t *testing.T) {
	w := begin(t)
	names := make([]string, 10)
	w.each(names, func(i int) error {
		names[i] = fmt.Sprintf("%s%d", w.unique("vm"), i)
		file := filepath.Join(harness.ImagesPath, names[i]+".qcow2")
		if _, err := w.a.Exec(w.ctx, "qemu-img", "create", "-q", "-f", "qcow2", file, "16M"); err != nil {
			return err
		}
		if err := w.lab.Guest(names[i]).Forget(w.ctx); err != nil {
			return err
		}
		d := harness.Domain{Name: names[i], MemoryMiB: 80, Options: "wherry.pace=300ms", Disks: []harness.Disk{{Target: "vda", Source: file}}}
		return errors.Join(w.a.Define(w.ctx, d.XML()), w.a.Start(w.ctx, names[i]))
	})
	w.each(names, func(i int) error { return w.lab.Guest(names[i]).WaitBlock(w.ctx, w.a.Host, "vda", 1) })
	for _, from := range w.sides() {
		to := w.other(from)
		w.each(names, func(i int) error {
			op, err := from.api.Migrate(w.ctx, ref(names[i]), api.MigrateRequest{Destination: to.URL()}, "")
			if err != nil {
				return err
			}
			op, err = from.api.WaitOperation(w.ctx, op.ID, nil)
			if err == nil && op.Status != api.StatusSucceeded {
				err = fmt.Errorf("%s: %s", op.Status, describe(op.Error))
			}
			return err
		})
		running, err := to.Virsh(w.ctx, "list", "--name")
		w.must(err)
		if got := strings.Fields(running); len(got) != len(names) {
			t.Errorf("host %s runs %q; want all of %q", to.Name, got, names)
		}
		if left, err := from.Domains(w.ctx); err != nil || len(left) != 0 {
			t.Errorf("host %s still has %q (%v)", from.Name, left, err)
		}
		if left := w.files(from); len(left) != 0 {
			t.Errorf("host %s still has the files %q", from.Name, left)
		}
		w.each(names, func(i int) error { return w.lab.Guest(names[i]).WaitMore(w.ctx, to.Host, "vda", 1) })
	}
	for _, name := range names[:2] {
		w.alive(name, w.a)
	}
}

// each does something for every name at once, and wants no error.
func (w *world) each(names []string, do func(i int) error) {
	w.Helper()
	errs := make([]error, len(names))
	var work sync.WaitGroup
	for i := range names {
		work.Go(func() {
			if err := do(i); err != nil {
				errs[i] = fmt.Errorf("%s: %w", names[i], err)
			}
		})
	}
	work.Wait()
	w.must(errors.Join(errs...))
}

// Everything that crosses is encrypted: libvirt's talk by its TLS port, memory
// and disks by QEMU itself.
func TestMigrationEncryptedByQEMU(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.agentWith(w.a, "WHERRY_MIGRATION_TLS=true")
	w.agentWith(w.b, "WHERRY_MIGRATION_LIBVIRT_URI=qemu+tls://wherry-b/system")
	w.heavy(w.a, name, 8*mib)
	w.rate(w.a, slow)
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	// QEMU says of its connections that they carry TLS.
	objects := w.exec(w.a, "virsh", "qemu-monitor-command", name, `{"execute":"qom-list","arguments":{"path":"/objects"}}`)
	if !strings.Contains(objects, "tls-creds-x509") {
		t.Errorf("the source's QEMU has no credentials: %s", objects)
	}
	w.must(w.a.Rate(w.ctx, "off"))
	w.moved(name, w.a, id)
}

// A person who follows a migration sees bytes, a rate and an estimate, disk by
// disk and for the memory, and never a step back. A file that has the volume's
// name at the destination is somebody else's and stays as it is.
func TestProgressAndATakenName(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	const first, second = 16 * mib, 8 * mib
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(w.a, name+".qcow2", first)},
		{Target: "vdb", Source: w.loaded(w.a, name+"-data.qcow2", second)},
	}})
	w.exec(w.b, "sh", "-c", `echo somebody else >"$0"`, filepath.Join(harness.ImagesPath, name+".qcow2"))
	w.must(w.lab.Guest(name).Pause(w.ctx, w.a.Host)) // what it writes would be counted too
	w.rate(w.a, "100mbit")
	id := w.begun(w.a, name, api.MigrateRequest{})
	var seen []api.Operation
	w.must(harness.Until(w.ctx, "the end of the migration", func(ctx context.Context) error {
		op, err := w.a.api.Operation(ctx, id)
		if err != nil {
			return err
		}
		seen = append(seen, op)
		if !op.Ended() {
			return fmt.Errorf("phase %q, %+v", op.Phase, op.Progress)
		}
		return nil
	}))
	w.must(w.lab.Guest(name).Resume(w.ctx, w.b.Host))
	result := w.moved(name, w.a, id)
	var disks, memory, estimates, rates int
	for i, op := range seen {
		p := op.Progress
		if i > 0 && p.Percent < seen[i-1].Progress.Percent {
			t.Errorf("percent %v after %v", p.Percent, seen[i-1].Progress.Percent)
		}
		if op.Phase != "perform" || len(p.Disks) == 0 {
			continue
		}
		if len(p.Disks) != 2 || p.Disks[0].Target != "vda" || p.Disks[1].Target != "vdb" || p.BytesDone > p.BytesTotal {
			t.Fatalf("progress %+v; want both disks, and no more done than there is", p)
		}
		for _, d := range p.Disks {
			if d.BytesDone > 0 && d.BytesDone < d.BytesTotal {
				disks++
			}
		}
		if p.Memory != nil && p.Memory.BytesDone > 0 && p.Memory.BytesDone < p.Memory.BytesTotal {
			memory++
		}
		if p.Rate > mib {
			rates++
		}
		if p.ETA != nil && p.ETA.Std() > 0 {
			estimates++
		}
	}
	if disks < 3 || memory < 3 || rates < 3 || estimates < 3 {
		t.Errorf("of %d looks %d showed a disk under way, %d memory, %d a rate, %d an estimate", len(seen), disks, memory, rates, estimates)
	}
	last := seen[len(seen)-1].Progress
	for i, data := range []int64{first, second} {
		// What was allocated, with what the guest wrote before.
		if d := last.Disks[i]; d.BytesDone != d.BytesTotal || d.BytesDone < data || d.BytesDone > data+4*mib {
			t.Errorf("at the end disk %+v; want about %d bytes", d, data)
		}
	}
	if last.Percent != 100 || result.Bytes.Disk < first+second || result.Bytes.Disk > first+second+8*mib || result.Bytes.Memory < mib {
		t.Errorf("at the end %+v, %+v; want the allocated bytes of the disks", last, result.Bytes)
	}
	if result.Downtime <= 0 || result.Phases["perform"] <= result.Downtime {
		t.Errorf("downtime %s of %v; want it, and less than all of it", result.Downtime.Std(), result.Phases)
	}
	if got := w.exec(w.b, "cat", filepath.Join(harness.ImagesPath, name+".qcow2")); got != "somebody else" {
		t.Errorf("the file that was there holds %q", got)
	}
	if d := w.defined(w.b, name, "vda", "--inactive"); !strings.HasPrefix(d.Source, filepath.Join(harness.ImagesPath, name)) || d.Source == filepath.Join(harness.ImagesPath, name+".qcow2") {
		t.Errorf("disk %+v; want a name beside the one that was taken", d)
	}
}

// A disk so small that nobody can watch it is counted all the same.
func TestQuickMigrationCountsItsDisks(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 2*mib)
	if r := w.migrate(w.a, name, api.MigrateRequest{}); r.Bytes.Disk < 2*mib || r.Bytes.Disk > 10*mib {
		t.Errorf("moved %+v; want the two megabytes and what the guest wrote", r.Bytes)
	}
	w.alive(name, w.b)
}
