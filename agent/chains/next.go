package chains

import (
	"context"
	"fmt"

	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
)

// Next gives what the next start of one instance will open. It waits for no
// other reading, and for its own no longer than InstanceTimeout; one that hangs
// in the kernel is left to itself.
func (r *Reader) Next(ctx context.Context, d hypervisor.Domain) (template.Chains, error) {
	type result struct {
		chains template.Chains
		err    error
	}
	timeout := r.InstanceTimeout
	if timeout <= 0 {
		timeout = defaultInstance
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	got := make(chan result, 1)
	go func() {
		defer cancel()
		var out template.Chains
		pools, err := r.Pools(ctx)
		if err == nil {
			in := instance{Reader: r, domain: d, pools: pools, out: &out}
			in.definition(ctx, true, false, nil)
		}
		got <- result{out, err}
	}()
	select {
	case res := <-got:
		return res.chains, res.err
	case <-ctx.Done():
	}
	select {
	case res := <-got: // which has cancelled the context
		return res.chains, res.err
	default:
		return template.Chains{}, fmt.Errorf("reading the disks of %q: %w", d.Name, ctx.Err())
	}
}
