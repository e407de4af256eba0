package hypervisor_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"libvirt.org/go/libvirt"

	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestCheckpoints(t *testing.T) {
	c, ctx := connect(t)
	if names, err := c.Checkpoints(ctx, "test"); err != nil || len(names) > 0 {
		t.Errorf("before there are any: %q, %v", names, err)
	}
	if _, err := c.Checkpoints(ctx, "nobody"); !errors.Is(err, hypervisor.ErrNoDomain) {
		t.Errorf("of a domain that is not there: %v", err)
	}
	err := c.WithDomain(ctx, "test", func(_ context.Context, d *libvirt.Domain) error {
		p, err := d.CreateCheckpointXML("<domaincheckpoint><name>monday</name></domaincheckpoint>", 0)
		if err != nil {
			return err
		}
		return p.Free()
	})
	if err != nil {
		t.Fatal(err)
	}
	if names, err := c.Checkpoints(ctx, "test"); err != nil || !slices.Equal(names, []string{"monday"}) {
		t.Errorf("checkpoints %q, %v; want the one that was made", names, err)
	}
}
