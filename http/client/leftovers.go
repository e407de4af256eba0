package client

import (
	"context"
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

// Leftovers lists what lies in the host's pools and nothing of the host owns.
func (c *Client) Leftovers(ctx context.Context) ([]api.Leftover, error) {
	list, err := call[api.LeftoverList](ctx, c, get("v1", "leftovers"))
	return list.Leftovers, err
}

// DeleteLeftovers removes those that are still left over.
func (c *Client) DeleteLeftovers(ctx context.Context, paths []string) (api.LeftoversDeleted, error) {
	return call[api.LeftoversDeleted](ctx, c, request{
		method: http.MethodDelete, path: []string{"v1", "leftovers"}, body: api.LeftoversDelete{Paths: paths}, again: true,
	})
}
