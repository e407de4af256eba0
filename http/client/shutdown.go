package client

import (
	"context"
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

// Shutdown starts stopping every instance of the host, or joins what is under
// way. An operation without an id means that the host goes down without its
// store; ShutdownStatus follows it then.
func (c *Client) Shutdown(ctx context.Context, body api.ShutdownRequest, key string) (api.Operation, error) {
	return c.act(ctx, request{method: http.MethodPost, path: []string{"v1", "host", "shutdown"}}, body, key)
}

// ShutdownStatus tells how far the shutdown of the host is.
func (c *Client) ShutdownStatus(ctx context.Context) (api.Shutdown, error) {
	return call[api.Shutdown](ctx, c, get("v1", "host", "shutdown"))
}

// SetStopPolicy says how an instance goes down with its host.
func (c *Client) SetStopPolicy(ctx context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error) {
	r := instance(http.MethodPut, ref, "stop-policy")
	r.body, r.again = p, true
	return call[api.StopPolicy](ctx, c, r)
}

// Hook tells the agent what libvirt's hook was told.
func (c *Client) Hook(ctx context.Context, body api.HookRequest) error {
	_, err := c.read(ctx, request{method: http.MethodPost, path: []string{"v1", "host", "hook"}, body: body, again: true})
	return err
}
