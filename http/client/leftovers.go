package client

import (
	"context"
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

// Leftovers lists what nothing of the host owns, and what was not looked at.
func (c *Client) Leftovers(ctx context.Context) (api.LeftoverList, error) {
	return call[api.LeftoverList](ctx, c, get("v1", "leftovers"))
}

// DeleteLeftovers removes those that are still left over.
func (c *Client) DeleteLeftovers(ctx context.Context, paths []string) (api.LeftoversDeleted, error) {
	return call[api.LeftoversDeleted](ctx, c, request{
		method: http.MethodDelete, path: []string{"v1", "leftovers"}, body: api.LeftoversDelete{Paths: paths}, again: true,
	})
}
