package instance_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Every domain is an instance; its record says whose.
func TestList(t *testing.T) {
	w := newWorld(t)
	w.libvirt.set(hypervisor.Domain{Name: "z", UUID: "z", State: hypervisor.Running})
	w.libvirt.set(hypervisor.Domain{Name: "a", UUID: "a", State: hypervisor.Paused, Incoming: true})
	w.libvirt.set(hypervisor.Domain{Name: "m", UUID: "m", State: hypervisor.Shutoff})
	must(t, w.Records.Write(api.Record{Project: "blue", Name: "m", UUID: "m", Template: "rocky9"}))
	must(t, w.Records.Write(api.Record{Project: "blue", Name: "z", UUID: "of another"}))
	all, err := w.List(t.Context(), "")
	must(t, err)
	var got []string
	for _, i := range all {
		got = append(got, i.Project+"/"+i.Name+" "+i.State)
	}
	if strings.Join(got, ", ") != "blue/m shutoff, default/a incoming, default/z running" {
		t.Errorf("instances %v", got)
	}
	if !all[0].Managed || all[0].Template != "rocky9" || all[2].Managed {
		t.Errorf("instances %+v", all)
	}
	blue, err := w.List(t.Context(), "blue")
	if err != nil || len(blue) != 1 || blue[0].Name != "m" {
		t.Errorf("of blue: %+v, %v", blue, err)
	}
	w.libvirt.fail["domains"] = hypervisor.ErrDown
	if _, err := w.List(t.Context(), ""); api.CodeOf(err) != "libvirt-down" {
		t.Errorf("error %v", err)
	}
}

// An instance whose image is lost is shown so in both views, and no other.
func TestHealth(t *testing.T) {
	w := newWorld(t)
	w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: uuid, State: hypervisor.Running})
	w.libvirt.set(hypervisor.Domain{Name: "z", UUID: "z", State: hypervisor.Running})
	w.Inspector = inspectFn(func([]api.Pool) (inspect.Instance, error) { return inspect.Instance{}, nil })
	why := []string{"its image is gone"}
	for _, ill := range []map[api.Ref][]string{{{Project: "default", Name: "vm"}: why, {Project: "blue", Name: "z"}: why}, nil} {
		w.reg.ill = ill
		all, err := w.List(t.Context(), "")
		must(t, err)
		one, err := w.Get(t.Context(), api.Ref{Project: "default", Name: "vm"})
		must(t, err)
		health, reasons := api.HealthOK, ""
		if ill != nil {
			health, reasons = api.HealthDegraded, why[0]
		}
		for _, got := range []api.Instance{all[0], one} {
			if got.Health != health || strings.Join(got.HealthReasons, " ") != reasons {
				t.Errorf("%s: %s, %q", got.Name, got.Health, got.HealthReasons)
			}
		}
		if all[1].Health != api.HealthOK || all[1].HealthReasons != nil {
			t.Errorf("of another project: %+v", all[1])
		}
	}
}

func TestGet(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	var asked []api.Pool
	w.Inspector = inspectFn(func(pools []api.Pool) (inspect.Instance, error) {
		asked = pools
		return inspect.Instance{Disks: []inspect.Disk{{Disk: api.Disk{Target: "vda", Disagreements: []string{"a"}},
			Issues: []api.Reason{{Code: "chain-unsafe", Detail: "b"}}}}}, nil
	})
	release := make(chan struct{})
	op, err := w.engine.Start(t.Context(), operation.Spec{Kind: "test", Project: ref.Project, Instance: ref.Name},
		func(context.Context, *operation.Op) (any, error) { <-release; return nil, nil })
	must(t, err)
	got, err := w.Get(t.Context(), ref)
	close(release)
	must(t, err)
	if !got.Managed || got.State != "running" || got.Operation != op.ID || len(asked) != 1 {
		t.Errorf("instance %+v, pools %v", got, asked)
	}
	if len(got.Disks) != 1 || strings.Join(got.Disks[0].Disagreements, " ") != "a b" {
		t.Errorf("disks %+v; want every fault of the chain shown", got.Disks)
	}
	if _, err := w.Get(t.Context(), api.Ref{Project: "blue", Name: "vm"}); api.CodeOf(err) != "not-found" {
		t.Errorf("of another project: %v", err)
	}
}

// silent is an inspector of an instance whose QEMU answers nothing.
type silent struct{}

func (silent) Inspect(ctx context.Context, _ api.Ref, _ []api.Pool) (inspect.Instance, error) {
	<-ctx.Done()
	return inspect.Instance{}, ctx.Err()
}

// What hangs is shown all the same, with who holds it: that is when one looks.
func TestGetOfWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.have(hypervisor.Running, true)
		w.Inspector = silent{}
		op, err := w.engine.Start(t.Context(), operation.Spec{Kind: "stop", Project: ref.Project, Instance: ref.Name, Cancellable: true},
			func(ctx context.Context, _ *operation.Op) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
		must(t, err)
		got, err := w.Get(t.Context(), ref)
		if err != nil || got.Lock == nil || got.Lock.Operation != op.ID || !strings.Contains(got.Reason, "does not answer") || got.Disks != nil {
			t.Errorf("instance %+v, error %v", got, err)
		}
		ctx, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		if _, err := w.Get(ctx, ref); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller has given up: %v", err)
		}
		w.closeEngine()
	})
}

// The disks of an instance that arrives cannot be asked for.
func TestGetArriving(t *testing.T) {
	w := newWorld(t)
	w.libvirt.set(hypervisor.Domain{Name: "vm", UUID: uuid, State: hypervisor.Paused, Incoming: true})
	w.Inspector = inspectFn(func([]api.Pool) (inspect.Instance, error) {
		t.Error("its QEMU was asked")
		return inspect.Instance{}, nil
	})
	if got, err := w.Get(t.Context(), ref); err != nil || got.State != "incoming" {
		t.Errorf("got %+v, %v", got, err)
	}
}
