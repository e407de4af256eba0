package client

import (
	"context"
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

// PlanRebuild asks what a rebuild would do, and changes nothing. What stands in
// the way is the problem "precondition" with its reasons.
func (c *Client) PlanRebuild(ctx context.Context, ref api.Ref, body api.RebuildRequest) (api.RebuildPlan, error) {
	r := instance(http.MethodPost, ref, "rebuild", "plan")
	r.body, r.again = body, true
	return call[api.RebuildPlan](ctx, c, r)
}

// Rebuild starts the replacing of an instance's root disk.
func (c *Client) Rebuild(ctx context.Context, ref api.Ref, body api.RebuildRequest, key string) (api.Operation, error) {
	return c.act(ctx, instance(http.MethodPost, ref, "rebuild"), body, key)
}
