package client

import (
	"context"
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

func incoming(method string, body any, rest ...string) request {
	// Each of these means the same when it arrives twice.
	return request{method: method, path: append([]string{"v1", "incoming"}, rest...), body: body, again: true}
}

// Facts asks a destination what it would take to receive an instance.
func (c *Client) Facts(ctx context.Context, body api.FactsRequest) (api.Facts, error) {
	return call[api.Facts](ctx, c, incoming(http.MethodPost, body, "facts"))
}

// Reserve makes a reservation at the destination. It is not sent twice by
// itself: the answer to a lost first one would be an error.
func (c *Client) Reserve(ctx context.Context, body api.IncomingRequest) (api.Incoming, error) {
	r := incoming(http.MethodPost, body)
	r.again = false
	return call[api.Incoming](ctx, c, r)
}

// Incoming gives a reservation as it is.
func (c *Client) Incoming(ctx context.Context, id string) (api.Incoming, error) {
	return call[api.Incoming](ctx, c, incoming(http.MethodGet, nil, id))
}

// Renew lengthens a reservation's lease.
func (c *Client) Renew(ctx context.Context, id string) (api.Incoming, error) {
	return call[api.Incoming](ctx, c, incoming(http.MethodPost, nil, id, "renew"))
}

// Commit ends a reservation well.
func (c *Client) Commit(ctx context.Context, id string, body api.CommitRequest) (api.Incoming, error) {
	return call[api.Incoming](ctx, c, incoming(http.MethodPost, body, id, "commit"))
}

// Settle acts on a copy whose migration ended unclearly.
func (c *Client) Settle(ctx context.Context, id string, body api.SettleRequest) (api.Incoming, error) {
	return call[api.Incoming](ctx, c, incoming(http.MethodPost, body, id, "settle"))
}

// RemoveIncoming takes back what a reservation made.
func (c *Client) RemoveIncoming(ctx context.Context, id string) error {
	_, err := c.read(ctx, incoming(http.MethodDelete, nil, id))
	return err
}

// ModifyTargets connects or disconnects targets. The caller compares how many
// paths it got with how many it asked for.
func (c *Client) ModifyTargets(ctx context.Context, body api.TargetsRequest) (api.TargetsResponse, error) {
	return call[api.TargetsResponse](ctx, c, request{
		method: http.MethodPost, path: []string{"v1", "targets"}, body: body, again: true,
	})
}
