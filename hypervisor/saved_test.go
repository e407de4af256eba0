package hypervisor_test

import (
	"context"
	"errors"
	"testing"

	"libvirt.org/go/libvirt"

	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestSaved(t *testing.T) {
	c, ctx := connect(t)
	if saved, err := c.Saved(ctx, "test"); err != nil || saved {
		t.Errorf("one that runs has saved memory: %t, %v", saved, err)
	}
	if _, err := c.Saved(ctx, "nobody"); !errors.Is(err, hypervisor.ErrNoDomain) {
		t.Errorf("of a domain that is not there: %v", err)
	}
	// The test driver's domains are each connection's own, so the one that saves
	// has to be the client's.
	save := func(_ context.Context, d *libvirt.Domain) error { return d.ManagedSave(0) }
	if err := c.WithDomain(ctx, "test", save); err != nil {
		t.Fatal(err)
	}
	if saved, err := c.Saved(ctx, "test"); err != nil || !saved {
		t.Errorf("after a managed save: %t, %v", saved, err)
	}
}
