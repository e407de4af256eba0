package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/certs"
)

// DefaultPort is the port of an https address that names none.
const DefaultPort = "8470"

const (
	connectTimeout = 10 * time.Second // dialling, and again for the handshake
	// Shorter than the server's, so that it is this side that closes an idle
	// connection and no request is lost in one that is closing.
	idleTimeout = 90 * time.Second
	// Bounds a call whose context has no deadline. Facts may digest whole images.
	callTimeout = 10 * time.Minute
)

// TLS are the PEM files of a connection: whom to trust and who one is. They
// are read at each new connection, so a renewed certificate needs no restart.
type TLS = certs.Files

// Client is one agent's interface. It is safe for concurrent use.
type Client struct {
	address  string
	base     string // scheme and host, for URLs
	http     *http.Client
	idle     func()
	first    time.Duration // the first pause before trying again
	patience time.Duration // how long an agent may be away while something is followed
}

type options struct {
	config   *tls.Config
	insecure bool
	log      *slog.Logger
	first    time.Duration
	patience time.Duration
	wrap     func(http.RoundTripper) http.RoundTripper
}

// Option changes how a client connects.
type Option func(*options)

// WithTLSConfig uses config in place of the files; ServerName is set where it
// is empty. The config is cloned for each connection.
func WithTLSConfig(config *tls.Config) Option { return func(o *options) { o.config = config } }

// WithInsecure admits plain http beyond loopback.
func WithInsecure() Option { return func(o *options) { o.insecure = true } }

// WithLog logs certificates that change or cannot be re-read.
func WithLog(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// WithTransport puts what wrap returns around the client's transport, for
// metrics, tracing or a test that looks at what crosses.
func WithTransport(wrap func(http.RoundTripper) http.RoundTripper) Option {
	return func(o *options) { o.wrap = wrap }
}

// WithRetry says how WaitOperation and Events bear an agent that is away: the
// first pause, doubled up to 2 s, and how long it may be away at a time.
// Default: 100 ms and 1 minute.
func WithRetry(first, patience time.Duration) Option {
	return func(o *options) { o.first, o.patience = first, patience }
}

// New makes a client of address: unix:PATH, https://HOST[:8470], or http://HOST:PORT
// on loopback. It does not connect. Wrong files are an error here.
func New(address string, files TLS, opts ...Option) (*Client, error) {
	o := options{log: slog.New(slog.DiscardHandler), first: 100 * time.Millisecond, patience: time.Minute}
	for _, set := range opts {
		set(&o)
	}
	c := &Client{address: address, first: o.first, patience: o.patience}
	transport := &http.Transport{
		Proxy:                  nil, // an agent is never behind the environment's proxy
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    4,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return nil, fmt.Errorf("agent address %q has no path", address)
		}
		c.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "unix", path) }
	} else if err := c.overTCP(transport, files, o); err != nil {
		return nil, fmt.Errorf("agent address %q: %w", address, err)
	}
	var outer http.RoundTripper = transport
	if o.wrap != nil {
		outer = o.wrap(transport)
	}
	c.idle = transport.CloseIdleConnections
	c.http = &http.Client{
		Transport: outer,
		// An agent does not redirect; whoever does is not one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func (c *Client) overTCP(transport *http.Transport, files TLS, o options) error {
	u, err := url.Parse(c.address)
	if err != nil {
		return err
	}
	if u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be unix:PATH or https://HOST:PORT and nothing more")
	}
	switch u.Scheme {
	case "https":
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), DefaultPort)
		}
		config, err := tlsConfig(u.Hostname(), files, o)
		if err != nil {
			return err
		}
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialTLS(ctx, network, address, config())
		}
	case "http":
		if !o.insecure && !loopback(u.Hostname()) {
			return errors.New("plain http beyond this host is refused; use https")
		}
		transport.DialContext = dial
	default:
		return fmt.Errorf("scheme %q is not unix, https or http", u.Scheme)
	}
	c.base = u.Scheme + "://" + u.Host
	return nil
}

// tlsConfig gives what makes the configuration of each new connection.
func tlsConfig(host string, files TLS, o options) (func() *tls.Config, error) {
	if o.config != nil {
		return func() *tls.Config {
			config := o.config.Clone()
			if config.ServerName == "" {
				config.ServerName = host
			}
			return config
		}, nil
	}
	store, err := certs.Open(files, o.log)
	if err != nil {
		return nil, err
	}
	return func() *tls.Config { return store.Client(host) }, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Address gives the address that the client was made with.
func (c *Client) Address() string { return c.address }

// Close closes connections that are idle. Calls under way go on.
func (c *Client) Close() { c.idle() }
