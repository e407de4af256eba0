package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/wherry-kvm/wherry/template/fault"
)

// get asks for the content and follows redirects. Each hop is judged like the
// first address, and is told the caller's headers only at the same scheme,
// host and port, and only until it was led away from there once.
func (c *client) get(ctx context.Context, u *url.URL, headers map[string]string, at At) (*http.Response, error) {
	first, credentials := u, true
	for hop := 0; ; hop++ {
		if err := c.checkHost(u); err != nil {
			return nil, err
		}
		own := headers
		if !credentials {
			own = nil
		}
		request, err := newRequest(ctx, u, own, at)
		if err != nil {
			return nil, err
		}
		response, err := c.send(request)
		if err != nil {
			return nil, err
		}
		next, err := redirect(response, u)
		if next == nil && err == nil {
			return response, nil
		}
		response.Body.Close()
		if err != nil {
			return nil, err
		}
		if hop >= c.redirects {
			return nil, fault.New(fault.Redirect, "%s redirects more than %d times, last to %s", redacted(first), c.redirects, redacted(next))
		}
		u, credentials = next, credentials && sameOrigin(first, next)
	}
}

func newRequest(ctx context.Context, u *url.URL, headers map[string]string, at At) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "", nil)
	if err != nil {
		return nil, fault.Of(err)
	}
	// Set and not parsed again: the query goes out as it was written.
	target := *u
	target.User, target.Fragment, target.RawFragment = nil, "", ""
	request.URL, request.Host = &target, target.Host
	request.Header.Set("User-Agent", "wherry")
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	// After the caller's: how the content is sent is decided here.
	request.Header.Set("Accept-Encoding", "identity")
	if at.Offset > 0 {
		request.Header.Set("Range", at.header())
		if condition := at.condition(); condition != "" {
			request.Header.Set("If-Range", condition)
		}
	}
	return request, nil
}

// send asks once and puts into words what went wrong.
func (c *client) send(r *http.Request) (*http.Response, error) {
	var connected atomic.Bool
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }, // after TLS
	})
	response, err := c.transport.RoundTrip(r.WithContext(ctx))
	switch {
	case err == nil:
		return response, nil
	case r.Context().Err() != nil:
		err = context.Cause(r.Context())
	default:
		err = c.unanswered(err, r.URL.Host, connected.Load())
	}
	return nil, fault.Of(err)
}

// unanswered words the errors that know least of themselves.
func (c *client) unanswered(err error, host string, connected bool) error {
	var late interface{ Timeout() bool }
	_, numbered := errors.AsType[syscall.Errno](err)
	_, judged := errors.AsType[*fault.Fault](err)
	code := fault.Of(err).Code
	switch {
	case numbered || judged || code == fault.Unresolvable || code == fault.TLS:
		return err
	case errors.As(err, &late) && late.Timeout() && !connected:
		return fault.New(fault.Unreachable, "no connection to %s in %s: %w", host, c.connect, err)
	case errors.As(err, &late) && late.Timeout():
		return fault.New(fault.Idle, "no answer from %s in %s: %w", host, c.header, err)
	case errors.Is(err, io.EOF):
		return fault.New(fault.ConnectionLost, "%s closed the connection without an answer: %w", host, err)
	case code == fault.Internal:
		return fault.New(fault.Protocol, "the answer of %s is not understood: %w", host, err)
	}
	return err
}

// answered makes a fault of an answer that is no content.
func answered(r *http.Response, from io.Reader, secret []string) error {
	text, _ := io.ReadAll(io.LimitReader(from, 16<<10)) // what came of it will do
	status := fault.Clean(r.Status, 80)
	words := fmt.Sprintf("%s from %s", status, redacted(r.Request.URL))
	if t := excerpt(string(text), status, slices.Concat(secret, secrets(r.Request.URL, nil))); t != "" {
		words += ": " + t
	}
	return fault.New(fault.HTTPStatus, "%w", &statusError{r.StatusCode, words})
}

// statusError is an answer that is no content.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// passing tells whether the answer may be another one soon.
func (e *statusError) passing() bool {
	return e.status >= 500 && e.status != http.StatusNotImplemented ||
		e.status == http.StatusRequestTimeout || e.status == http.StatusTooManyRequests
}
