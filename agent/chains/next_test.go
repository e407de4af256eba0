package chains_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// What a start will open counts, and not what runs; the copy is named also
// when it is gone.
func TestNext(t *testing.T) {
	w := newWorld(t)
	d := running("vm", xml(file("vda", "qcow2", w.image("alone.qcow2", ""))), w.path("alone.qcow2"))
	d.Persistent, d.inactive = true, xml(file("vda", "qcow2", w.image("vm.qcow2", w.copy)))
	w.libvirt.domains = []domain{d, stopped("other", xml(file("vda", "qcow2", w.copy)))}
	must(t, os.Remove(w.copy))
	got, err := w.Next(t.Context(), d.Domain)
	must(t, err)
	if users := strings.Join(w.users(got), ", "); users != "vm vda vm.qcow2" || len(got.Uses) != 1 || len(w.libvirt.asked) != 0 {
		t.Errorf("users %q, uses %+v, asked %q", users, got.Uses, w.libvirt.asked)
	}
}

func TestNextFails(t *testing.T) {
	w := newWorld(t)
	w.Pools = func(context.Context) ([]api.Pool, error) { return nil, hypervisor.ErrDown }
	if _, err := w.Next(t.Context(), hypervisor.Domain{Name: "vm"}); !errors.Is(err, hypervisor.ErrDown) {
		t.Errorf("error %v", err)
	}
	w.InstanceTimeout = time.Millisecond
	release, ended := make(chan struct{}), make(chan struct{})
	w.Pools = func(context.Context) ([]api.Pool, error) { <-release; close(ended); return nil, hypervisor.ErrDown }
	if _, err := w.Next(t.Context(), hypervisor.Domain{Name: "vm"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	close(release)
	<-ended
}
