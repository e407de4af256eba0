package daemon

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

const (
	// libvirtPatience is how long after its start the agent waits for libvirt
	// where a failure would cost work: both start with the host.
	libvirtPatience = 30 * time.Second
	libvirtLook     = 50 * time.Millisecond
)

// templatePools lists where templates may lie. An agent that has just started
// waits for libvirt first: an image that was half here when it stopped would
// otherwise fail for want of a pool, and begin anew.
func templatePools(host func(context.Context) (api.Host, error), up func() bool) func(context.Context) ([]template.Pool, error) {
	patience := time.Now().Add(libvirtPatience)
	return func(ctx context.Context) ([]template.Pool, error) {
		waiting, cancel := context.WithDeadline(ctx, patience)
		defer cancel()
		await(waiting, up)
		h, err := host(ctx)
		if err != nil {
			return nil, err
		}
		var out []template.Pool
		for _, p := range h.Pools {
			if p.Active && p.Path != "" {
				// What has an identity, other hosts may have too.
				out = append(out, template.Pool{Name: p.Name, Path: p.Path, Shared: p.Identity != ""})
			}
		}
		return out, nil
	}
}

// await returns when something is up, or ctx ends.
func await(ctx context.Context, up func() bool) {
	look := time.NewTicker(libvirtLook)
	defer look.Stop()
	for !up() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-look.C:
		}
	}
}
