package source

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
)

// client sends single requests under the rules of Options.
type client struct {
	transport *transport
	allow     func(netip.Addr) bool
	redirects int
	connect   time.Duration
	header    time.Duration
	idle      time.Duration
}

func newClient(o Options) *client {
	c := &client{
		allow:     o.AllowAddress,
		redirects: o.MaxRedirects,
		connect:   orDefault(o.ConnectTimeout, 10*time.Second),
		header:    orDefault(o.HeaderTimeout, orDefault(o.IdleTimeout, 30*time.Second)),
		idle:      orDefault(o.IdleTimeout, 30*time.Second),
	}
	if c.allow == nil {
		c.allow = Public
	}
	if c.redirects == 0 {
		c.redirects = 5
	}
	c.redirects = max(c.redirects, 0)
	c.transport = newTransport(o, c)
	return c
}

// transport goes to a server itself or through a proxy. They are two, because
// the address of a proxy is the operator's choice and must not be judged, and
// that of a server always is.
type transport struct {
	direct, proxied *http.Transport
	proxy           func(*http.Request) (*url.URL, error)
}

func newTransport(o Options, c *client) *transport {
	t := &transport{proxy: o.Proxy}
	if t.proxy == nil {
		t.proxy = http.ProxyFromEnvironment
	}
	guarded := &net.Dialer{Timeout: c.connect, Resolver: o.Resolver, ControlContext: guard(c.allow)}
	t.direct = baseTransport(o, c, guarded)
	t.proxied = baseTransport(o, c, &net.Dialer{Timeout: c.connect, Resolver: o.Resolver})
	t.proxied.Proxy = t.proxy
	t.proxied.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, r *http.Response) error {
		if r.StatusCode == http.StatusOK {
			return nil
		}
		return fault.New(fault.HTTPStatus, "the proxy %s answered %s", proxy.Host, r.Status)
	}
	return t
}

func baseTransport(o Options, c *client, dialer *net.Dialer) *http.Transport {
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    c.connect,
		TLSClientConfig:        &tls.Config{RootCAs: o.Authorities, MinVersion: tls.VersionTLS12},
		ResponseHeaderTimeout:  c.header,
		MaxResponseHeaderBytes: 64 << 10,
		// An image is long: a connection kept for the next would only be found
		// dead then.
		DisableKeepAlives: true,
		// The checksum is over the bytes as they are stored, and a range is of them.
		DisableCompression: true,
		// HTTP/1 only: one stream for a connection, so that HTTP/2 would only
		// add a copy of each byte and a window that limits far servers.
		Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// RoundTrip sends one request and follows nothing.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	proxy, err := t.proxy(r)
	switch {
	case err != nil:
		// The text may have the proxy's password in it.
		return nil, fault.New(fault.Internal, "the proxy of the environment is malformed: %w", withoutURL(err))
	case proxy == nil:
		return t.direct.RoundTrip(r)
	}
	return t.proxied.RoundTrip(r)
}

// withoutURL takes the URL, which may hold secrets, from an error's text.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok && e.Err != nil {
		return e.Err
	}
	return err
}
