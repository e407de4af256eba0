package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
)

// httpOrigin is an image behind a URL of http or https. It only ever asks with
// GET: signed URLs allow nothing else.
type httpOrigin struct {
	client  *client
	url     *url.URL
	headers map[string]string
	size    int64 // that a Metalink announced, -1 for none
}

// Name gives the URL without its secrets.
func (o *httpOrigin) Name() string { return redacted(o.url) }

// Open begins to read, from at.Offset on if the content is still the same.
func (o *httpOrigin) Open(ctx context.Context, at At) (Stream, error) {
	s, ok, err := o.open(ctx, at)
	if err == nil && !ok {
		// A range of something else. What was said of it may be a lie, so
		// nothing is taken from that answer but that it is useless.
		s, _, err = o.open(ctx, At{})
	}
	return s, err
}

// open asks once. Not ok: the range cannot be used, ask for the whole.
func (o *httpOrigin) open(ctx context.Context, at At) (s Stream, ok bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	response, err := o.client.get(ctx, o.url, o.headers, at) //nolint:bodyclose // closed by body, or below
	if err != nil {
		cancel(nil)
		return Stream{}, true, err
	}
	b := &body{from: response.Body, ctx: ctx, cancel: cancel, idle: o.client.idle, host: response.Request.URL.Host, length: -1}
	b.timer = time.AfterFunc(b.idle, func() {
		cancel(fault.New(fault.Idle, "no data from %s for %s", b.host, b.idle))
	})
	is, length := judge(response, at)
	b.length = length
	s = Stream{ReadCloser: b, Offset: at.Offset, MediaType: mediaType(response)}
	switch is {
	case resumed:
		given, _ := parseContentRange(response.Header.Get("Content-Range"))
		s.Validator = at.Validator.updated(response.Header, given.total)
	case whole:
		s.Offset, s.Validator = 0, validator(response.Header, length)
	case complete:
		s.Validator, s.ReadCloser = at.Validator, io.NopCloser(strings.NewReader(""))
		s.Total = at.Offset
		return s, true, drop(b)
	case stale:
		return Stream{}, false, drop(b)
	default:
		err = answered(response, b, o.secrets())
	}
	if err == nil {
		err = o.check(response, s)
	}
	if err != nil {
		_ = drop(b) // what is wrong is known already
		return Stream{}, true, err
	}
	return s, true, nil
}

// drop closes a body of which nothing is wanted. It cannot fail in a way that
// matters.
func drop(b *body) error {
	_ = b.Close()
	return nil
}

// check refuses an answer that cannot be the image.
func (o *httpOrigin) check(r *http.Response, s Stream) error {
	host := r.Request.URL.Host
	e := strings.ToLower(r.Header.Get("Content-Encoding"))
	// Servers call a .gz file so though they send it as it is, which is right
	// for us: the checksum is over the bytes as they are served.
	stored := (e == "gzip" || e == "x-gzip") && strings.HasSuffix(strings.ToLower(r.Request.URL.Path), ".gz")
	switch {
	case e != "" && e != "identity" && !stored:
		return fault.New(fault.Protocol, "%s sent the content encoding %q, which was not asked for", host, e)
	case o.size >= 0 && s.Total >= 0 && o.size != s.Total:
		return fault.New(fault.Size, "%s has %d bytes, the Metalink says %d", redacted(r.Request.URL), s.Total, o.size)
	}
	return nil
}

func mediaType(r *http.Response) string {
	m, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return m
}

func (o *httpOrigin) secrets() []string { return secrets(o.url, o.headers) }

// get asks for the content and follows redirects. Each hop is judged like the
// first address, and is told the caller's headers only at the same scheme,
// host and port, and only until it was led away from there once.
func (c *client) get(ctx context.Context, u *url.URL, headers map[string]string, at At) (*http.Response, error) {
	first, credentials := u, true
	for hop := 0; ; hop++ {
		if err := c.checkHost(u); err != nil {
			return nil, err
		}
		request, err := newRequest(ctx, u, at)
		if err != nil {
			return nil, err
		}
		if credentials {
			for name, value := range headers {
				request.Header.Set(name, value)
			}
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

func newRequest(ctx context.Context, u *url.URL, at At) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "", nil)
	if err != nil {
		return nil, fault.Of(err)
	}
	// Set and not parsed again: the query goes out as it was written.
	target := *u
	target.User, target.Fragment, target.RawFragment = nil, "", ""
	request.URL, request.Host = &target, target.Host
	request.Header.Set("User-Agent", "wherry")
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
	if err == nil {
		return response, nil
	}
	var late interface{ Timeout() bool }
	f := fault.Of(err)
	_, numbered := errors.AsType[syscall.Errno](err)
	switch {
	case r.Context().Err() != nil:
		return nil, fault.Of(context.Cause(r.Context()))
	case f.Code == fault.Unresolvable || f.Code == fault.TLS || f.Code == fault.Address:
	case errors.As(err, &late) && late.Timeout() && !connected.Load() && !numbered:
		return nil, fault.New(fault.Unreachable, "no connection to %s in %s: %w", r.URL.Host, c.connect, err)
	case errors.As(err, &late) && late.Timeout() && !numbered:
		return nil, fault.New(fault.Idle, "no answer from %s in %s: %w", r.URL.Host, c.header, err)
	case errors.Is(err, io.EOF):
		return nil, fault.New(fault.ConnectionLost, "%s closed the connection without an answer: %w", r.URL.Host, err)
	case f.Code == fault.Internal && !numbered && f.Err == err: //nolint:errorlint // whether it is unclassified, not what it is
		return nil, fault.New(fault.Protocol, "the answer of %s is not understood: %w", r.URL.Host, err)
	}
	return nil, f
}

// redirect gives where an answer leads, or nil where it does not.
func redirect(r *http.Response, from *url.URL) (*url.URL, error) {
	switch r.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil //nolint:nilnil // no redirect is not an error
	}
	to, err := r.Location()
	if err != nil {
		return nil, fault.New(fault.Protocol, "%s answered %s without saying where to: %w", redacted(from), r.Status, withoutURL(err))
	}
	to.User = nil
	switch {
	case to.Scheme != "http" && to.Scheme != "https":
		return nil, fault.New(fault.Redirect, "%s redirects to scheme %q", redacted(from), to.Scheme)
	case to.Scheme == "http" && from.Scheme == "https":
		return nil, fault.New(fault.Redirect, "%s redirects from https to http: %s", redacted(from), redacted(to))
	}
	return to, nil
}

// sameOrigin compares scheme, host and port (RFC 6454).
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// port gives the URL's port, also where it is left out.
func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// answered makes a fault of an answer that is no content.
func answered(r *http.Response, from io.Reader, secret []string) error {
	text, _ := io.ReadAll(io.LimitReader(from, 16<<10)) // what came of it will do
	status := fault.Clean(r.Status, 80)
	words := fmt.Sprintf("%s from %s", status, redacted(r.Request.URL))
	if t := excerpt(string(text), status, slicesWith(secret, r.Request.URL)); t != "" {
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
