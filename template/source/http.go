package source

import (
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

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
	s, is, err := o.ask(ctx, at)
	if err == nil && is == stale {
		// What was said of another content may be a lie, so nothing is taken
		// from that answer but that it is useless.
		lie := s.Lie
		_ = s.Close()
		s, _, err = o.ask(ctx, At{})
		s.Lie = lie
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

// ask sends one request. Where the answer is stale its stream is of nothing.
func (o *httpOrigin) ask(ctx context.Context, at At) (Stream, verdict, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	response, err := o.client.get(ctx, o.url, o.headers, at) //nolint:bodyclose // the stream's Close does
	if err != nil {
		cancel(nil)
		return Stream{}, refused, err
	}
	is, total := judge(response, at)
	if total < 0 && is == whole {
		total = o.size // it is held to that at its end
	}
	b := newBody(ctx, cancel, response, o.client.idle, total)
	s := Stream{ReadCloser: b, MediaType: mediaType(response)}
	switch is {
	case whole:
		s.Validator = validator(response.Header, total)
	case resumed, complete:
		s.Offset, s.Validator, b.at = at.Offset, at.updated(response.Header, total), at.Offset
	case stale:
		s.Lie = lie(response, at)
	case refused:
		err = answered(response, b, o.secrets())
	}
	if err == nil && (is == whole || is == resumed) {
		err = o.check(response, total)
	}
	if is == complete {
		// The body is a page about the range, and not of the content.
		b.from = readCloser{strings.NewReader(""), response.Body}
	}
	if err != nil {
		_ = b.Close() // what is wrong is known already
	}
	return s, is, err
}

type readCloser struct {
	io.Reader
	io.Closer
}

// check refuses an answer that cannot be the image.
func (o *httpOrigin) check(r *http.Response, total int64) error {
	host := r.Request.URL.Host
	e := strings.ToLower(r.Header.Get("Content-Encoding"))
	// Servers call a .gz file so though they send it as it is, which is right
	// for us: the checksum is over the bytes as they are served.
	stored := (e == "gzip" || e == "x-gzip") && strings.HasSuffix(strings.ToLower(r.Request.URL.Path), ".gz")
	switch {
	case e != "" && e != "identity" && !stored:
		return fault.New(fault.Protocol, "%s sent the content encoding %q, which was not asked for", host, e)
	case o.size >= 0 && total >= 0 && o.size != total:
		return fault.New(fault.Size, "%s has %d bytes, the Metalink says %d", redacted(r.Request.URL), total, o.size)
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
