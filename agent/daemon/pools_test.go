package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
)

// An agent that has just started asks libvirt when it is there.
func TestTemplatePools(t *testing.T) {
	looks := 0
	up := func() bool { looks++; return looks > 2 }
	host := func(context.Context) (api.Host, error) {
		if looks <= 2 {
			return api.Host{}, hypervisor.ErrDown
		}
		return api.Host{Pools: []api.Pool{
			{Name: "default", Path: "/images", Active: true}, {Name: "off", Path: "/off"}, {Name: "rbd", Active: true},
		}}, nil
	}
	got, err := templatePools(host, up)(t.Context())
	must(t, err)
	if d := cmp.Diff([]template.Pool{{Name: "default", Path: "/images"}}, got); d != "" {
		t.Error(d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	never := func() bool { return false }
	looks = 0
	if _, err := templatePools(host, never)(ctx); !errors.Is(err, hypervisor.ErrDown) {
		t.Errorf("libvirt does not come: %v", err)
	}
}
