package client

import (
	"context"
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

func template(method string, rest ...string) request {
	return request{method: method, path: append([]string{"v1", "templates"}, rest...)}
}

// Templates lists the host's templates.
func (c *Client) Templates(ctx context.Context) ([]api.Template, error) {
	list, err := call[api.TemplateList](ctx, c, template(http.MethodGet))
	return list.Templates, err
}

// UnownedFiles lists the files of the host's pools that look like templates'
// and belong to none.
func (c *Client) UnownedFiles(ctx context.Context) ([]api.UnownedFile, error) {
	list, err := call[api.TemplateList](ctx, c, template(http.MethodGet))
	return list.Unowned, err
}

// Template gives one template.
func (c *Client) Template(ctx context.Context, id string) (api.Template, error) {
	return call[api.Template](ctx, c, template(http.MethodGet, id))
}

// RegisterTemplate starts the registration of a template.
func (c *Client) RegisterTemplate(ctx context.Context, body api.TemplateRequest, key string) (api.Operation, error) {
	return c.act(ctx, template(http.MethodPost), body, key)
}

// RetryTemplate starts another attempt at a template that failed.
func (c *Client) RetryTemplate(ctx context.Context, id, key string) (api.Operation, error) {
	return c.act(ctx, template(http.MethodPost, id, "retry"), nil, key)
}

// ScrubTemplate starts a full read of a template's copies.
func (c *Client) ScrubTemplate(ctx context.Context, id, key string) (api.Operation, error) {
	return c.act(ctx, template(http.MethodPost, id, "scrub"), nil, key)
}

// RemoveTemplate removes a template and gives what is left of it.
func (c *Client) RemoveTemplate(ctx context.Context, id string) (api.Template, error) {
	r := template(http.MethodDelete, id)
	r.again = true
	return call[api.Template](ctx, c, r)
}
