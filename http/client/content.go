package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/extents"
)

// contentSilence is how long a stream of content may bring nothing where the
// caller does not say.
const contentSilence = time.Minute

// offerTimeout bounds the question what an agent would send.
const offerTimeout = 15 * time.Second

// ContentRequest asks for a template's bytes.
type ContentRequest struct {
	// ID is the template's, or the digest of the bytes: "sha256:...".
	ID string
	// Offset is where to begin, in bytes of the file.
	Offset int64
	// Digest is that of the content which the offset belongs to. Where the
	// agent has other content by now, it begins at 0. Empty: any content.
	Digest string
	// Silence is how long the stream may bring nothing. Default: 1 minute.
	Silence time.Duration
	// Received hears, as they come, how many bytes travelled: less than what is
	// read where there are holes. It may be nil, and must not block.
	Received func(bytes int64)
}

// ContentInfo is what an agent says of a template's content.
type ContentInfo struct {
	Digest   string // of the whole content, "sha256:..."; "" where it told none
	Format   string // that it is registered with there
	Checksum string // that it is registered with there
	Size     int64  // of the whole content in bytes, holes included
	// Allocated is what the file takes there, in bytes; 0 where it told none.
	Allocated int64
}

// Content is a template's bytes from Offset on, holes as zeroes. The caller
// closes it.
type Content struct {
	ContentInfo
	Offset int64

	in        *extents.Reader
	body      io.Closer
	travelled *counted
	lost      func(error) error
}

// TemplateOffer asks what TemplateContent would bring, and whether it would.
// Its errors have the codes of TemplateContent's, but not the agent's words.
func (c *Client) TemplateOffer(ctx context.Context, id string) (ContentInfo, error) {
	r := template(http.MethodHead, id, "content")
	ctx, cancel := context.WithTimeoutCause(ctx, offerTimeout, &silence{offerTimeout})
	defer cancel()
	resp, err := c.send(ctx, r)
	if err != nil {
		return ContentInfo{}, err
	}
	_ = resp.Body.Close()
	return info(resp, resp.ContentLength), nil
}

// TemplateContent streams a template's bytes. Holes do not travel. There is no
// bound on the whole, but a stream that falls silent fails. Errors are
// [Unreachable], or a problem: "not-found", "not-ready", "overloaded" with
// RetryAfter, "bad-range" for an offset behind the end, and "peer-failed" for
// an answer that breaks the rules.
func (c *Client) TemplateContent(ctx context.Context, want ContentRequest) (*Content, error) {
	r := template(http.MethodGet, want.ID, "content")
	r.header = http.Header{extents.Header: {extents.Version}}
	if want.Offset > 0 {
		r.header.Set(extents.OffsetHeader, strconv.FormatInt(want.Offset, 10))
		if want.Digest != "" {
			r.header.Set("If-Range", `"`+want.Digest+`"`)
		}
	}
	if want.Silence <= 0 {
		want.Silence = contentSilence
	}
	resp, err := c.stream(ctx, r, want.Silence)
	if err != nil {
		return nil, err
	}
	content, err := c.content(resp, want)
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return content, nil
}

// content holds the beginning of an answer against what was asked for.
func (c *Client) content(resp *http.Response, want ContentRequest) (*Content, error) {
	if got := resp.Header.Get("Content-Type"); got != extents.MediaType {
		return nil, api.NewProblem("peer-failed", "agent %q sent template %q as %q", c.address, want.ID, got)
	}
	out := &Content{body: resp.Body, travelled: &counted{Reader: resp.Body, hear: want.Received},
		lost: func(err error) error { return c.broken(want.ID, err) }}
	var err error
	if out.in, err = extents.NewReader(out.travelled); err != nil {
		return nil, out.lost(err)
	}
	out.ContentInfo, out.Offset = info(resp, out.in.Size()), out.in.Start()
	switch {
	case digest.MatchString(want.ID) && out.Digest != want.ID:
		return nil, api.NewProblem("peer-failed", "agent %q was asked for %s and sends %q", c.address, want.ID, out.Digest)
	case out.Offset != 0 && out.Offset != want.Offset:
		return nil, api.NewProblem("peer-failed", "agent %q was asked for bytes from %d and sends from %d", c.address, want.Offset, out.Offset)
	case out.Offset != 0 && want.Digest != "" && out.Digest != want.Digest:
		return nil, api.NewProblem("peer-failed", "agent %q goes on with %q where %s was begun", c.address, out.Digest, want.Digest)
	}
	return out, nil
}

// broken words what went wrong with a stream.
func (c *Client) broken(id string, err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return c.unreachable(err)
	case errors.Is(err, extents.ErrMalformed):
		return api.NewProblem("peer-failed", "template %q from agent %q: %w", id, c.address, err)
	}
	return err
}

// Read gives the next bytes; [io.EOF] only after the whole.
func (c *Content) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = c.lost(err)
	}
	return n, err
}

// Close ends the stream, read or not.
func (c *Content) Close() error { return c.body.Close() }

// Travelled gives how many bytes of the stream have come so far: less than
// what was read where there are holes, more where some is still to be read.
func (c *Content) Travelled() int64 { return c.travelled.n }

type counted struct {
	io.Reader
	hear func(int64)
	n    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	if c.hear != nil && n > 0 {
		c.hear(int64(n))
	}
	return n, err
}

var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// info reads what an answer's headers say. An ETag of any other kind is none
// of an agent's.
func info(resp *http.Response, size int64) ContentInfo {
	out := ContentInfo{Format: resp.Header.Get(api.HeaderFormat), Checksum: resp.Header.Get(api.HeaderChecksum), Size: size}
	if tag, err := strconv.Unquote(resp.Header.Get("ETag")); err == nil && digest.MatchString(tag) {
		out.Digest = tag
	}
	if n, err := strconv.ParseInt(resp.Header.Get(api.HeaderAllocated), 10, 64); err == nil && n > 0 {
		out.Allocated = n
	}
	return out
}
