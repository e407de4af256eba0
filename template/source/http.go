package source

import (
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
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
	// isMirror: a Metalink led here, so that another must not.
	isMirror bool
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
	if err != nil || !isMetalinkType(s.MediaType) || isMetalinkName(o.url.Path) {
		return s, err
	}
	defer s.Close()
	if o.isMirror {
		return Stream{}, fault.New(fault.Protocol, "the mirror %s is another Metalink", o.Name())
	}
	return o.openMirrors(ctx, s, at)
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
		s.Validator = at.updated(response.Header, given.total)
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
