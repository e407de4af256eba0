package template

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// HTTPOptions of a download. Zero values are the defaults given.
type HTTPOptions struct {
	ConnectTimeout time.Duration // 10 s, for the connection and for TLS each
	HeaderTimeout  time.Duration // 30 s, from the request to the answer's header
	IdleTimeout    time.Duration // 30 s without a byte of the body
	MaxRedirects   int           // 5; negative: none
	// AllowAddress judges the address that is really connected to, after name
	// resolution and on every redirect. Default: PublicAddress.
	AllowAddress func(net.IP) bool
	// TLS to use; the host's own certificates where nil.
	TLS *tls.Config
}

// PublicAddress refuses loopback, link-local (where clouds serve secrets),
// private, multicast and unspecified addresses.
func PublicAddress(ip net.IP) bool { return PrivateAddress(ip) && !ip.IsPrivate() }

// PrivateAddress is PublicAddress with private networks allowed.
func PrivateAddress(ip net.IP) bool {
	return ip.IsGlobalUnicast() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
}

type httpFetcher struct {
	client *http.Client
	idle   time.Duration
}

func newHTTPFetcher(o HTTPOptions) *httpFetcher {
	connect := orDefault(o.ConnectTimeout, 10*time.Second)
	redirects := o.MaxRedirects
	if redirects == 0 {
		redirects = 5
	}
	allow := o.AllowAddress
	if allow == nil {
		allow = PublicAddress
	}
	dialer := &net.Dialer{Timeout: connect, ControlContext: guardAddress(allow)}
	return &httpFetcher{
		idle: orDefault(o.IdleTimeout, 30*time.Second),
		client: &http.Client{
			// No proxy: its address would be judged in place of the server's.
			Transport: &http.Transport{
				DialContext:           dialer.DialContext,
				TLSHandshakeTimeout:   connect,
				TLSClientConfig:       o.TLS,
				ResponseHeaderTimeout: orDefault(o.HeaderTimeout, 30*time.Second),
				IdleConnTimeout:       30 * time.Second,
				MaxIdleConnsPerHost:   1,
				// The checksum is over the bytes as they are stored.
				DisableCompression: true,
				ForceAttemptHTTP2:  true,
			},
			CheckRedirect: checkRedirect(redirects),
		},
	}
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		return fallback
	}
	return d
}

// guardAddress judges the address just before connecting: a name that was
// checked earlier could resolve to another address now.
func guardAddress(allow func(net.IP) bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		host, _, _ = strings.Cut(host, "%") // zone of a link-local address
		if ip := net.ParseIP(host); ip == nil || !allow(ip) {
			return fmt.Errorf("address %s: %w", host, ErrForbidden)
		}
		return nil
	}
}

func checkRedirect(limit int) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		first := via[0]
		switch {
		case len(via) > max(limit, 0):
			return fmt.Errorf("more than %d redirects: %w", max(limit, 0), ErrForbidden)
		case next.URL.Scheme != "https" && next.URL.Scheme != first.URL.Scheme:
			return fmt.Errorf("redirect from %s to %s: %w", first.URL.Scheme, next.URL.Scheme, ErrForbidden)
		}
		if next.URL.Host != first.URL.Host {
			// Headers hold the caller's secrets, meant for the first host.
			next.Header = http.Header{}
		}
		return nil
	}
}

func (f *httpFetcher) open(ctx context.Context, u *url.URL, headers map[string]string) (Content, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return Content{}, err
	}
	request.Header = header(headers)
	response, err := f.client.Do(request) //nolint:bodyclose // closed by idleReader
	if err != nil {
		cancel(nil)
		return Content{}, readable(u, err)
	}
	body := &idleReader{body: response.Body, ctx: ctx, cancel: cancel, idle: f.idle}
	body.timer = time.AfterFunc(f.idle, func() { cancel(fmt.Errorf("%w for %s", ErrIdle, f.idle)) })
	if err := checkResponse(response, body); err != nil {
		return Content{}, errors.Join(readable(u, err), body.Close())
	}
	return Content{body, response.ContentLength}, nil
}

// readable gives the error with the address once, and without its query, which
// may be a secret.
func readable(u *url.URL, err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%s://%s%s: %w", u.Scheme, u.Host, u.Path, err)
}

func checkResponse(r *http.Response, body io.Reader) error {
	if r.StatusCode != http.StatusOK {
		// The server's own words, as far as they are fit to be shown.
		text, _ := io.ReadAll(io.LimitReader(body, 256))
		words := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(text), ""), func(c rune) bool { return c <= ' ' || c == 0x7f }), " ")
		if words != "" {
			return fmt.Errorf("%w: %s: %s", ErrServer, r.Status, words)
		}
		return fmt.Errorf("%w: %s", ErrServer, r.Status)
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return fmt.Errorf("%w: content encoding %q was not asked for", ErrServer, e)
	}
	return nil
}

// idleReader ends a download that no byte arrives from. A deadline over the
// whole download would punish a slow link.
type idleReader struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
}

func (r *idleReader) Read(p []byte) (int, error) {
	// Only while waiting for the server: writing what came may take its time.
	r.timer.Reset(r.idle)
	n, err := r.body.Read(p)
	r.timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) && r.ctx.Err() != nil {
		err = context.Cause(r.ctx)
	}
	return n, err
}

func (r *idleReader) Close() error {
	r.timer.Stop()
	err := r.body.Close()
	r.cancel(nil)
	return err
}
