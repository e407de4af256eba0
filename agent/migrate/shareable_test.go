package migrate_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// A copy of what others write to would go its own way.
func TestShareableDiskIsNotCopied(t *testing.T) {
	w := newWorld(t)
	w.libvirt.xml["vm"] = domainXML("vm", strings.Replace(fileDisk("vda", w.disk), "<target", "<shareable/><target", 1))
	var err error
	w.instance.Parsed, err = domainxml.Parse(w.libvirt.xml["vm"])
	must(t, err)
	_, err = w.Plan(t.Context(), vm, api.MigrateRequest{Destination: "https://b:8470"})
	p := api.AsProblem(err)
	if p == nil || len(p.Reasons) != 1 || p.Reasons[0].Code != "device-not-migratable" || p.Reasons[0].Disk != "vda" {
		t.Fatalf("error %+v; want it refused", p)
	}
	facts := w.peer.facts
	w.peer.facts = func(r api.FactsRequest) (api.Facts, error) {
		f, err := facts(r)
		f.Disks = []api.DiskFacts{{Target: "vda", SharedPools: f.Pools, SharedPath: w.disk}}
		return f, err
	}
	if _, err := w.Plan(t.Context(), vm, api.MigrateRequest{Destination: "https://b:8470"}); err != nil {
		t.Errorf("on common storage: %v", err)
	}
}

// A destination that prepares for ever is not waited for any longer than that.
func TestPreparingHasAnEnd(t *testing.T) {
	w := newWorld(t)
	w.peer.reserve = func(_ context.Context, in api.Incoming) (api.Incoming, error) { in.State = "preparing"; return in, nil }
	w.peer.renew = func(in api.Incoming) (api.Incoming, error) { in.State = "preparing"; return in, nil }
	p := w.fails(api.MigrateRequest{Timeout: api.Duration(20 * time.Millisecond)}, api.StatusFailed, "timeout", "prepare")
	if p.Hint == "" || !strings.Contains(p.Detail, "preparing") {
		t.Errorf("problem %+v", p)
	}
}
