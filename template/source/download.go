package source

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
)

// Options of downloads. Zero values are the defaults given.
type Options struct {
	ConnectTimeout time.Duration // 10 s, for the name and connection, and for TLS
	HeaderTimeout  time.Duration // as IdleTimeout; from the request to the answer's header
	IdleTimeout    time.Duration // 30 s without a byte of the body
	MaxRedirects   int           // 5; negative: none
	// AllowAddress judges the address that is really connected to, after the
	// name was resolved and on every redirect. Default: [Public].
	AllowAddress func(netip.Addr) bool
	// Authorities sign the servers' certificates; the host's own where nil.
	Authorities *x509.CertPool
	// Proxy tells which proxy a request goes through, nil for none. Default:
	// [http.ProxyFromEnvironment]. The proxy's own address is not judged, and
	// it looks up names in our place: only addresses in a URL are refused then.
	Proxy func(*http.Request) (*url.URL, error)
	// Resolver looks up names; the host's own where nil.
	Resolver *net.Resolver
	// Files are the folders from which file:// may read; with none, it may not.
	Files []string
}

// Request is what to download. Headers are sent to the scheme, host and port
// of the URL only, not to where it redirects nor to a mirror elsewhere.
type Request struct {
	URL     string
	Headers map[string]string
}

// Resolved is where the image of a request lies, best first.
type Resolved struct {
	Origins []Origin
	// Checksums are what a Metalink says of the bytes, "algorithm:hex",
	// strongest first. The algorithms are sha512, sha256, sha1 and md5.
	Checksums []string
	Size      int64 // bytes as served; -1 where not known
}

// Download finds and reads images for this host: over http and https, and in
// the folders that the configuration names. Its methods may be called at the
// same time.
type Download struct {
	client *client
	files  []string
}

// NewDownload makes a download. It holds nothing that must be given back.
func NewDownload(o Options) *Download {
	return &Download{client: newClient(o), files: o.Files}
}

// Check refuses what would never be downloaded, without input or output: a
// scheme, a file outside of the folders, a forbidden address written as such.
// Its faults are of the codes scheme, file-folder and address.
func (d *Download) Check(r Request) error {
	_, err := d.parse(r.URL)
	return err
}

// Resolve finds the origins of a request. Only a Metalink (RFC 5854), which is
// known by its name, is read from the network for it. Errors are a
// *fault.Fault.
func (d *Download) Resolve(ctx context.Context, r Request) (Resolved, error) {
	u, err := d.parse(r.URL)
	if err != nil {
		return Resolved{}, err
	}
	origin := d.origin(u, r.Headers)
	if !isMetalinkName(u.Path) {
		return Resolved{Origins: []Origin{origin}, Size: -1}, nil
	}
	return d.resolveMetalink(ctx, origin, u, r.Headers)
}

func (d *Download) origin(u *url.URL, headers map[string]string) Origin {
	if u.Scheme == "file" {
		return &fileOrigin{folders: d.files, path: u.Path}
	}
	return &httpOrigin{client: d.client, url: u, headers: headers, size: -1}
}

func (d *Download) parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The text has the query in it; its cause does not.
		return nil, fault.New(fault.Scheme, "malformed URL: %w", withoutURL(err))
	}
	switch u.Scheme {
	case "http", "https":
		return u, d.client.checkHost(u)
	case "file":
		_, _, err := place(d.files, u.Path)
		return u, err
	}
	return nil, fault.New(fault.Scheme, "scheme %q: only https, http and file can be downloaded", u.Scheme)
}

// checkHost refuses a host that is written as a forbidden address, before a
// proxy or a resolver makes something of it.
func (c *client) checkHost(u *url.URL) error {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if host == "" {
		return fault.New(fault.Scheme, "the URL names no host")
	}
	addr, ok := literal(host)
	if !ok && (host == "localhost" || strings.HasSuffix(host, ".localhost")) {
		addr, ok = netip.AddrFrom4([4]byte{127, 0, 0, 1}), true // RFC 6761, 6.3
	}
	if ok && !c.allow(addr) {
		return forbidden(net.JoinHostPort(host, port(u)), addr)
	}
	return nil
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d <= 0 {
		return fallback
	}
	return d
}
