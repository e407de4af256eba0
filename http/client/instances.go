package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/wherry-kvm/wherry/http/api"
)

// AllProjects stands for every project in a list of instances or operations.
const AllProjects = "*"

// inProject selects a project; "" is the default one.
func inProject(project string) url.Values {
	if project == "" {
		return nil
	}
	return url.Values{"project": {project}}
}

func instance(method string, ref api.Ref, rest ...string) request {
	return request{method: method, path: append([]string{"v1", "instances", ref.Name}, rest...), query: inProject(ref.Project)}
}

func get(path ...string) request { return request{method: http.MethodGet, path: path} }

// Host gives what the agent says of its machine.
func (c *Client) Host(ctx context.Context) (api.Host, error) {
	return call[api.Host](ctx, c, get("v1", "host"))
}

// Instances lists a project's instances: "" is the default project,
// [AllProjects] all of them.
func (c *Client) Instances(ctx context.Context, project string) ([]api.Instance, error) {
	r := get("v1", "instances")
	r.query = inProject(project)
	list, err := call[api.InstanceList](ctx, c, r)
	return list.Instances, err
}

// Instance gives one instance.
func (c *Client) Instance(ctx context.Context, ref api.Ref) (api.Instance, error) {
	return call[api.Instance](ctx, c, instance(http.MethodGet, ref))
}

// Disks gives an instance's disks and what they stand on.
func (c *Client) Disks(ctx context.Context, ref api.Ref) ([]api.Disk, error) {
	list, err := call[api.DiskList](ctx, c, instance(http.MethodGet, ref, "disks"))
	return list.Disks, err
}

// Create starts the making of an instance. The key, where it is not empty,
// makes the request repeatable; so for all that follow.
func (c *Client) Create(ctx context.Context, project string, body api.CreateRequest, key string) (api.Operation, error) {
	return call[api.Operation](ctx, c, request{
		method: http.MethodPost, path: []string{"v1", "instances"}, query: inProject(project), key: key, body: body,
	})
}

// Delete starts the removal of a stopped instance.
func (c *Client) Delete(ctx context.Context, ref api.Ref, body api.DeleteRequest, key string) (api.Operation, error) {
	return c.act(ctx, instance(http.MethodDelete, ref), body, key)
}

// Start starts an instance.
func (c *Client) Start(ctx context.Context, ref api.Ref, key string) (api.Operation, error) {
	return c.act(ctx, instance(http.MethodPost, ref, "start"), nil, key)
}

// Stop starts the stopping of an instance.
func (c *Client) Stop(ctx context.Context, ref api.Ref, body api.StopRequest, key string) (api.Operation, error) {
	return c.act(ctx, instance(http.MethodPost, ref, "stop"), body, key)
}

// Restart starts the stopping of an instance, which is then started again.
func (c *Client) Restart(ctx context.Context, ref api.Ref, body api.StopRequest, key string) (api.Operation, error) {
	return c.act(ctx, instance(http.MethodPost, ref, "restart"), body, key)
}

// Plan asks what a migration would do, and changes nothing. A plan that is
// refused is the problem "refused" with its reasons.
func (c *Client) Plan(ctx context.Context, ref api.Ref, body api.MigrateRequest) (api.Plan, error) {
	r := instance(http.MethodPost, ref, "migrate", "plan")
	r.body, r.again = body, true
	return call[api.Plan](ctx, c, r)
}

// Migrate starts a migration.
func (c *Client) Migrate(ctx context.Context, ref api.Ref, body api.MigrateRequest, key string) (api.Operation, error) {
	return c.act(ctx, instance(http.MethodPost, ref, "migrate"), body, key)
}

func (c *Client) act(ctx context.Context, r request, body any, key string) (api.Operation, error) {
	r.body, r.key = body, key
	return call[api.Operation](ctx, c, r)
}
