//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// noLabel is what the guest says of a disk that stands on no template.
const noLabel = "-"

// rebuilt is an instance that is to be rebuilt, on host a: linked to a
// template, running, with a data disk that is no business of a rebuild.
type rebuilt struct {
	*world
	on    *side
	name  string
	uuid  string
	guest *harness.Guest
	data  string // path of the data disk
	xml   string // its definition, with the root disk's own lines cut out
	boots int
	// before are volumes of an earlier run of the test, whose refs stay for an
	// hour when the lab is emptied past the agent.
	before map[string]string
}

// toRebuild makes it from that template.
func (w *world) toRebuild(name string, from api.Template) *rebuilt {
	w.Helper()
	r := &rebuilt{world: w, on: w.a, name: w.unique(name)}
	r.guest, r.data = w.lab.Guest(r.name), images(r.name+"-data.qcow2")
	r.before = r.refs()
	w.create(r.on, r.name, from.ID, "linked")
	w.volume(r.on, r.data, "qcow2")
	op, err := r.on.api.Stop(w.ctx, ref(r.name), api.StopRequest{}, "")
	w.run(r.on, op, err)
	w.exec(r.on, "virsh", "-q", "attach-disk", r.name, r.data, "vdb", "--driver", "qemu", "--subdriver", "qcow2", "--config")
	r.uuid = strings.TrimSpace(w.exec(r.on, "virsh", "-q", "domuuid", r.name))
	r.xml = r.rest()
	op, err = r.on.api.Start(w.ctx, ref(r.name), "")
	w.run(r.on, op, err)
	r.boots = 1
	r.booted()
	w.must(r.guest.WaitMore(w.ctx, r.on.Host, "vdb", 3))
	return r
}

// rest is the definition without what a rebuild may change: sources, but that
// of the data disk, and what they stand on.
func (r *rebuilt) rest() string {
	r.Helper()
	var out []string
	for line := range strings.Lines(r.exec(r.on, "virsh", "dumpxml", "--inactive", r.name)) {
		of := strings.TrimSpace(line)
		source := strings.HasPrefix(of, "<source file='"+harness.ImagesPath) && !strings.Contains(of, r.data)
		if !source && !strings.HasPrefix(of, "<backingStore") && !strings.HasPrefix(of, "</backingStore") && !strings.HasPrefix(of, "<format type=") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// booted waits for one more boot, until it writes to both disks, and gives what
// it said of them when it began.
func (r *rebuilt) booted() (said harness.Console) {
	r.Helper()
	r.must(harness.Until(r.ctx, "another boot of "+r.name, func(ctx context.Context) error {
		console, err := r.guest.Console(ctx, r.on.Host)
		if err != nil {
			return err
		}
		if n := len(console.Boots()); n <= r.boots {
			return fmt.Errorf("%d boots", n)
		}
		last := len(console) - 1
		for !strings.HasPrefix(console[last], "BOOT ") {
			last--
		}
		said = console[last:]
		if said.LastBlock("vda") < 0 || said.LastBlock("vdb") < 0 {
			return errors.New("it has not written to both disks")
		}
		r.boots = len(console.Boots())
		return nil
	}))
	return said
}

// rebuild rebuilds it and wants that to succeed.
func (r *rebuilt) rebuild(q api.RebuildRequest) (out api.RebuildResult) {
	r.Helper()
	op, err := r.on.api.Rebuild(r.ctx, ref(r.name), q, "")
	op = r.run(r.on, op, err)
	r.must(json.Unmarshal(op.Result, &out))
	if !out.Removed || len(out.Warnings) > 0 {
		r.Errorf("result %s; want the old disk gone, and no warning", op.Result)
	}
	return out
}

// refused asks for a rebuild that must be refused at once for these reasons.
func (r *rebuilt) refused(q api.RebuildRequest, want ...string) *api.Problem {
	r.Helper()
	_, err := r.on.api.Rebuild(r.ctx, ref(r.name), q, "")
	p := r.problem(err, "precondition")
	var got []string
	for _, reason := range p.Reasons {
		got = append(got, reason.Code)
	}
	if !slices.Equal(got, want) {
		r.Errorf("reasons %+v; want %q", p.Reasons, want)
	}
	return p
}

func source(typ string, t ...api.Template) api.RebuildSource {
	out := api.RebuildSource{Type: typ}
	if len(t) > 0 {
		out.Template = t[0].ID
	}
	return out
}

// root is the path of the root disk.
func (r *rebuilt) root() string {
	r.Helper()
	return r.defined(r.on, r.name, "vda", "--inactive").Source
}

// sound wants all witnesses to agree on the root disk: one volume that stands
// on the template's copy (or alone, without one), the record, the ref, and
// nothing else of the instance in the pool. What is not of the root disk is as
// it was.
func (r *rebuilt) sound(on *api.Template) {
	r.Helper()
	root := r.root()
	want := []layer{{root, "qcow2"}}
	id := "no template"
	if on != nil {
		id = on.ID
		want = append(want, layer{r.copyOf(r.on, on.ID).Path, "qcow2"})
	}
	r.stands(r.on, r.name, "vda", want...)
	if rest := r.rest(); rest != r.xml {
		r.Errorf("the definition was\n%s\nand is\n%s", r.xml, rest)
	}
	if uuid := strings.TrimSpace(r.exec(r.on, "virsh", "-q", "domuuid", r.name)); uuid != r.uuid {
		r.Errorf("UUID %s; want %s", uuid, r.uuid)
	}
	record := r.exec(r.on, "cat", "/var/lib/wherry/records/default/"+r.name+".yaml")
	if !strings.Contains(record, "path: "+root+"\n") || on != nil && !strings.Contains(record, "template: "+on.ID+"\n") || on == nil && strings.Contains(record, "template: ") {
		r.Errorf("record\n%s\nwant root disk %s on %s", record, root, id)
	}
	for _, file := range r.files(r.on) {
		if path := images(file); strings.Contains(file, r.name) && path != root && path != r.data {
			r.Errorf("left in the pool: %s; the root disk is %s", file, root)
		}
	}
	refs := map[string]string{}
	if on != nil {
		refs[root] = on.ID + " " + api.RefBoth
	}
	if got := r.refs(); !maps.Equal(got, refs) {
		r.Errorf("refs %v; want %v", got, refs)
	}
	if i, err := r.on.api.Instance(r.ctx, ref(r.name)); err != nil || i.Operation != "" || i.Lock != nil {
		r.Errorf("instance %+v, %v; want it held by nobody", i, err)
	}
}

// refs are those of its volumes: to which template, and who knows of it.
func (r *rebuilt) refs() map[string]string {
	r.Helper()
	all, err := r.on.api.Templates(r.ctx)
	r.must(err)
	out := map[string]string{}
	for _, t := range all {
		for _, u := range t.Refs {
			if _, earlier := r.before[u.Volume]; u.Instance == r.name && (!earlier || u.Known != api.RefRecorded) {
				out[u.Volume] = t.ID + " " + u.Known
			}
		}
	}
	return out
}

// fresh wants the guest to have booted from a root disk that holds nothing but
// the template of that label ("" = none), and to go on with its data disk.
func (r *rebuilt) fresh(label string, data int64) {
	r.Helper()
	said := r.booted()
	if !slices.ContainsFunc(said, func(line string) bool {
		return strings.HasPrefix(line, "disk vda ") && strings.HasSuffix(line, " next=0")
	}) {
		r.Errorf("the guest says %q; want nothing of an earlier boot on vda", said[:min(6, len(said))])
	}
	r.labelled(label, data)
}

// labelled wants the guest to find all in order.
func (r *rebuilt) labelled(label string, data int64) {
	r.Helper()
	if label == "" {
		label = noLabel
	}
	reports, err := r.guest.Verify(r.ctx, r.on.Host)
	r.must(err)
	for _, report := range reports {
		if report.Disk == "vda" && (report.Label != label || report.Template > 0 != (label != noLabel)) {
			r.Errorf("report %+v; want the template of label %q", report, label)
		}
		if report.Disk == "vdb" && report.Last < data {
			r.Errorf("report %+v; want block %d to be there still", report, data)
		}
	}
	if len(reports) != 2 {
		r.Errorf("reports %+v; want both disks", reports)
	}
}

// written is the last block on the data disk, with the guest's others before it.
func (r *rebuilt) written() int64 {
	r.Helper()
	n, err := r.guest.LastBlock(r.ctx, r.on.Host, "vdb")
	r.must(err)
	return n
}

// killer ends an agent without a warning as fast as can be: it knows its
// process from its socket.
func (w *world) killer(s *side) func() {
	w.Helper()
	w.cleanup("starting the agent", func(ctx context.Context) error { return s.Agent(ctx, "start") })
	c, err := net.Dial("unix", s.Socket())
	if err != nil {
		return func() { w.must(s.Agent(w.ctx, "kill")) } // not of this machine
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	w.must(err)
	var cred *unix.Ucred
	w.must(raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }))
	w.must(err)
	return func() {
		w.Helper()
		w.must(syscall.Kill(int(cred.Pid), syscall.SIGKILL))
		w.must(s.Agent(w.ctx, "kill")) // which waits for its end
	}
}
