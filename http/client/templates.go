package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/extents"
)

// contentSilence is how long a stream of content may bring nothing.
const contentSilence = time.Minute

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

// RemoveTemplate removes a template and gives what is left of it.
func (c *Client) RemoveTemplate(ctx context.Context, id string) (api.Template, error) {
	r := template(http.MethodDelete, id)
	r.again = true
	return call[api.Template](ctx, c, r)
}

// Content is a template's bytes from Offset on. The caller closes Body.
type Content struct {
	Body   io.ReadCloser
	Digest string // of the whole content, "sha256:..."; "" where the agent told none
	Offset int64  // where Body begins
	Length int64  // how much of it is to come, -1 where unknown
}

// TemplateContent streams a template's bytes, holes and all. With an offset it
// resumes, if the content still has the digest; otherwise the whole comes
// again and Offset is 0. There is no bound on the whole, but a stream that
// brings nothing for a minute fails.
func (c *Client) TemplateContent(ctx context.Context, id string, offset int64, digest string) (*Content, error) {
	r := template(http.MethodGet, id, "content")
	r.header = http.Header{}
	if offset > 0 {
		r.header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if digest != "" {
			r.header.Set("If-Range", `"`+digest+`"`)
		}
	}
	resp, err := c.stream(ctx, r, contentSilence)
	if err != nil {
		return nil, err
	}
	content := &Content{Body: resp.Body, Digest: strings.Trim(resp.Header.Get("ETag"), `"`), Length: resp.ContentLength}
	if resp.StatusCode == http.StatusPartialContent {
		content.Offset = offset
		if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", offset)) {
			_ = resp.Body.Close()
			return nil, api.NewProblem("peer-failed", "agent %q was asked for bytes from %d and sent %q", c.address, offset, got)
		}
	}
	return content, nil
}

// TemplateExtents copies a template into w, an empty file, without its holes.
// It gives the size that the file is to have and the content's digest, which
// the caller verifies. A content of more than limit bytes is refused. After an
// error w holds a part.
func (c *Client) TemplateExtents(ctx context.Context, id string, w io.WriterAt, limit int64) (size int64, digest string, err error) {
	r := template(http.MethodGet, id, "content")
	r.header = http.Header{extents.Header: {"1"}}
	resp, err := c.stream(ctx, r, contentSilence)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if got := resp.Header.Get("Content-Type"); got != extents.MediaType {
		return 0, "", api.NewProblem("peer-failed", "agent %q sent template %q as %q", c.address, id, got)
	}
	size, err = extents.Decode(resp.Body, w, limit)
	if err != nil {
		return 0, "", fmt.Errorf("template %q from agent %q: %w", id, c.address, err)
	}
	return size, strings.Trim(resp.Header.Get("ETag"), `"`), nil
}
