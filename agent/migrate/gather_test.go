package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/host"
	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// counted is a host's libvirt that counts how often its pools are listed.
type counted struct {
	libvirt
	pools atomic.Int32
	dir   string
}

func (c *counted) Host(context.Context) (hypervisor.Host, error) {
	return hypervisor.Host{Name: "h", UUID: "host-" + c.dir}, nil
}

func (c *counted) Pools(context.Context) ([]hypervisor.Pool, error) {
	c.pools.Add(1)
	return []hypervisor.Pool{{Name: "default", Type: "dir", Path: c.dir, Active: true}, {Name: "second", Type: "dir", Path: c.dir + "/none", Active: true}}, nil
}

func (*counted) Up() bool { return true }

func (*counted) CompareCPU(context.Context, string) (bool, string, error) { return true, "", nil }

func (*counted) CompletedJob(context.Context, string) (hypervisor.Job, error) {
	return hypervisor.Job{}, nil
}

type noTemplates struct{ incoming.Templates }

func (noTemplates) ReadyByDigest(string) (path, id string, ok bool) { return "", "", false }

// Facts of both hosts are fetched once for each request, and each pool once,
// however many disks there are. (A scan for every disk was a real product's bug.)
func TestPlanAsksOnce(t *testing.T) {
	w := newWorld(t)
	a, b := &counted{dir: w.dir}, &counted{dir: t.TempDir()}
	for n := range 5 {
		d := w.instance.Disks[0]
		d.Target = fmt.Sprintf("vd%c", 'b'+n)
		d.Path = filepath.Join(w.dir, d.Target)
		d.Chain = []api.Layer{{Path: d.Path, Format: "qcow2", VirtualSize: 4 * mib}}
		w.instance.Disks = append(w.instance.Disks, d)
	}
	destination, err := incoming.New(t.Context(), incoming.Options{Hypervisor: b, Host: &host.Service{Hypervisor: b}, Templates: noTemplates{},
		Store: store.Memory(), Digester: volume.NewDigester(), Log: slog.New(slog.DiscardHandler), Now: time.Now, Lease: time.Minute})
	must(t, err)
	defer destination.Close()
	w.peer.facts = func(r api.FactsRequest) (api.Facts, error) { return destination.Facts(t.Context(), r) }
	w.Host = &host.Service{Hypervisor: a}
	plan, err := w.Plan(t.Context(), vm, api.MigrateRequest{Destination: "https://b"})
	must(t, err)
	if len(plan.Disks) != 6 || len(w.peer.asked) != 1 || w.inspector.calls != 1 || a.pools.Load() != 1 || b.pools.Load() != 1 {
		t.Errorf("%d disks; facts asked %d times, inspected %d, pools listed %d times here and %d there; want each once",
			len(plan.Disks), len(w.peer.asked), w.inspector.calls, a.pools.Load(), b.pools.Load())
	}
	// None of them stands on a template.
	if w.reg.asked != 0 {
		t.Errorf("the registry was asked %d times", w.reg.asked)
	}
	// Nor did planning leave anything: probe files are gone.
	entries, err := os.ReadDir(w.dir)
	must(t, err)
	if len(entries) != 1 || len(w.peer.requests) != 0 {
		t.Errorf("files %v, reservations %d", entries, len(w.peer.requests))
	}
}

// What the destination is asked: digests of the frozen layers, a probe beside
// each copied disk, and media by name only.
func TestFactsRequest(t *testing.T) {
	w := newWorld(t)
	base := filepath.Join(w.dir, "base.qcow2")
	must(t, os.WriteFile(base, []byte("base"), 0o600))
	d := &w.instance.Disks[0]
	d.Chain = append(d.Chain, api.Layer{Path: base, Format: "qcow2", VirtualSize: 4 * mib, Template: "rocky9"})
	w.instance.Disks = append(w.instance.Disks, inspect.Disk{Disk: api.Disk{Target: "sda", Kind: "file", Device: "cdrom", Path: "/iso"}},
		inspect.Disk{Disk: api.Disk{Target: "sdb", Kind: "file", Device: "cdrom"}})
	probed := false
	facts := w.peer.facts
	w.peer.facts = func(r api.FactsRequest) (api.Facts, error) {
		p := r.Disks[0].Probe
		probed = p != nil && volume.SeesProbe(w.dir, volume.Probe{Name: p.Name, Token: p.Token})
		f, err := facts(r)
		f.Media = map[string]bool{"/iso": true}
		return f, err
	}
	_, err := w.Plan(t.Context(), vm, api.MigrateRequest{Destination: "https://b"})
	must(t, err)
	r := w.peer.asked[0]
	digest, err := w.Digester.Digest(t.Context(), base)
	must(t, err)
	if len(r.Disks) != 1 || r.Disks[0].Chain[1].Digest != digest || !probed || len(r.Media) != 1 || r.Media[0] != "/iso" || r.DomainXML == "" {
		t.Errorf("request %+v, probe seen %v", r, probed)
	}
	if w.reg.asked != 1 {
		t.Errorf("the registry was asked %d times for one template", w.reg.asked)
	}
}

func TestPlanIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *world)
		code   string
		hint   bool
	}{
		{"it does not run", func(w *world) { w.instance.Domain.State = hypervisor.Shutoff }, "precondition", true},
		{"it is arriving", func(w *world) { w.instance.Domain.Incoming = true }, "precondition", true},
		{"it is not there", func(w *world) {
			w.inspector.look = func() (inspect.Instance, error) { return inspect.Instance{}, api.NewProblem("not-found", "no") }
		}, "not-found", false},
		{"no certificate", func(w *world) { w.Dial = func(string) (migrate.Peer, error) { return nil, migrate.ErrNoIdentity } }, "precondition", true},
		{"no such address", func(w *world) { w.Dial = func(string) (migrate.Peer, error) { return nil, errors.New("parse") } }, "bad-request", false},
		{"nobody there", func(w *world) {
			w.peer.facts = func(api.FactsRequest) (api.Facts, error) {
				return api.Facts{}, api.NewProblem("peer-unreachable", "no route")
			}
		}, "peer-unreachable", true},
		{"the peer fails", func(w *world) {
			w.peer.facts = func(api.FactsRequest) (api.Facts, error) { return api.Facts{}, errors.New("broken pipe") }
		}, "peer-failed", false},
		{"snapshots", func(w *world) { w.instance.Domain.Snapshots = 1 }, "refused", true},
		{"a chain that is not sound", func(w *world) {
			w.instance.Disks[0].Issues = []api.Reason{{Code: "chain-unsafe", Detail: "marked corrupt"}}
		}, "refused", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			r := api.MigrateRequest{Destination: "https://b"}
			_, err := w.Plan(t.Context(), vm, r)
			if p := api.AsProblem(err); p == nil || p.Code != c.code || (c.hint && p.Hint == "") || (c.code == "refused" && (len(p.Reasons) != 1)) {
				t.Errorf("plan: %+v; want %s", p, c.code)
			}
			// Migrate answers the same, at once, and touches nothing.
			_, err = w.Migrate(t.Context(), vm, r, api.Idempotency{})
			if api.CodeOf(err) != c.code {
				t.Errorf("migrate: %v; want %s", err, c.code)
			}
			if len(w.peer.requests) != 0 || len(w.mover.params) != 0 {
				t.Error("the destination was touched")
			}
		})
	}
}
