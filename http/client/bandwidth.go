package client

import (
	"context"
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

// Bandwidth gives what the migrations from the host may send together, and who
// has which share of it.
func (c *Client) Bandwidth(ctx context.Context) (api.Bandwidth, error) {
	return call[api.Bandwidth](ctx, c, get("v1", "host", "bandwidth"))
}

// ResetBandwidth goes back to what is configured.
func (c *Client) ResetBandwidth(ctx context.Context) (api.Bandwidth, error) {
	return call[api.Bandwidth](ctx, c, request{method: http.MethodDelete, path: []string{"v1", "host", "bandwidth"}, again: true})
}

// SetBandwidth changes that, in bytes per second; 0 = no limit.
func (c *Client) SetBandwidth(ctx context.Context, bytes int64) (api.Bandwidth, error) {
	return call[api.Bandwidth](ctx, c, request{method: http.MethodPut, path: []string{"v1", "host", "bandwidth"},
		body: api.BandwidthRequest{Bandwidth: &bytes}, again: true})
}
