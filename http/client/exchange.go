package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/wire"
)

// Bounds of what is read of an answer, in bytes.
const (
	maxAnswer  = 32 << 20
	maxProblem = 1 << 20
)

// request is one call before it is sent.
type request struct {
	method string
	path   []string // segments, not yet escaped
	query  url.Values
	header http.Header
	key    string // Idempotency-Key
	// again says that the call may be sent twice without harm though it has no
	// key, so that an idle connection which the agent closed costs nothing.
	again bool
	// limit bounds the call. 0: callTimeout, where the caller sets no deadline.
	limit time.Duration
	body  any
}

// call sends r and decodes the answer into a T.
func call[T any](ctx context.Context, c *Client, r request) (T, error) {
	var out T
	b, err := c.read(ctx, r)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, api.NewProblem("peer-failed", "agent %q answered %s %s with something else than %T: %w", c.address, r.method, r.url(), out, err)
	}
	return out, nil
}

// read sends r and gives the whole answer.
func (c *Client) read(ctx context.Context, r request) ([]byte, error) {
	limit := r.limit
	if _, ok := ctx.Deadline(); !ok && limit == 0 {
		limit = callTimeout
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, &silence{limit})
		defer cancel()
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, c.lost(ctx, r, err)
	}
	if len(b) > maxAnswer {
		return nil, api.NewProblem("peer-failed", "agent %q answered %s %s with more than %d bytes", c.address, r.method, r.url(), maxAnswer)
	}
	return b, nil
}

// send sends r and gives an answer below 300, its body unread. Everything else
// is an error.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	var body io.Reader
	if r.body != nil {
		b, err := wire.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.url(), body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.url(), err)
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case r.key != "":
		req.Header.Set("Idempotency-Key", r.key)
	case r.again:
		// net/http's way to say so; nothing of it is sent (http.Transport).
		req.Header["Idempotency-Key"] = nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, r, err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		defer func() { _ = resp.Body.Close() }()
		return nil, c.problem(r, resp)
	}
	return resp, nil
}

// silence is the cause of a context that this package ended, because an agent
// took too long.
type silence struct{ after time.Duration }

// Timeout lets whoever classifies errors tell silence from a lost connection.
func (s *silence) Timeout() bool { return true }

func (s *silence) Error() string { return fmt.Sprintf("nothing came for %s", s.after) }

// lost tells the caller's own end from the agent's.
func (c *Client) lost(ctx context.Context, r request, err error) error {
	cause := context.Cause(ctx)
	if quiet, ok := errors.AsType[*silence](cause); ok {
		return &Unreachable{Address: c.address, Stage: StageExchange, Err: quiet}
	}
	if cause != nil {
		return fmt.Errorf("%s %s at %q: %w", r.method, r.url(), c.address, cause)
	}
	return c.unreachable(err)
}

// problem reads an error answer. One that is no problem document comes from
// something between, or from no agent at all.
func (c *Client) problem(r request, resp *http.Response) error {
	if r.method == http.MethodHead {
		return c.wordless(r, resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var p api.Problem
	if err == nil && mediaType == api.MediaTypeProblem && json.Unmarshal(b, &p) == nil && p.Code != "" {
		p.Status, p.RetryAfter = resp.StatusCode, retryAfter(resp)
		return &p
	}
	text := strings.ToValidUTF8(string(b[:min(len(b), 200)]), "?")
	return api.NewProblem("peer-failed", "agent %q answered %s %s with %s: %q", c.address, r.method, r.url(), resp.Status, text)
}

// wordless names what the answer to a HEAD, which has no body, can only mean.
func (c *Client) wordless(r request, resp *http.Response) error {
	code := "peer-failed"
	switch {
	case resp.StatusCode == http.StatusNotFound:
		code = "not-found"
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		code = "overloaded"
	case resp.StatusCode == http.StatusServiceUnavailable:
		code = "not-ready"
	}
	p := api.NewProblem(code, "agent %q answered %s %s with %s", c.address, r.method, r.url(), resp.Status)
	p.RetryAfter = retryAfter(resp)
	return p
}

// retryAfter gives when to ask again; agents say it in seconds, never as a date.
func retryAfter(resp *http.Response) time.Duration {
	s, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || s < 0 {
		return 0
	}
	return time.Duration(min(s, 3600)) * time.Second
}

// url gives path and query.
func (r request) url() string {
	var b strings.Builder
	for _, segment := range r.path {
		b.WriteString("/" + url.PathEscape(segment))
	}
	if q := r.query.Encode(); q != "" {
		b.WriteString("?" + q)
	}
	return b.String()
}
