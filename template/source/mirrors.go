package source

import (
	"context"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/template/fault"
)

// resolveMetalink reads the document and gives its mirrors as origins.
func (d *Download) resolveMetalink(ctx context.Context, u *url.URL, o Origin, headers map[string]string) (Resolved, error) {
	r, err := NewReader(ctx, o, At{}, ReaderOptions{})
	if err != nil {
		return Resolved{}, err
	}
	defer func() { _ = r.Close() }() // it was only read
	doc, err := io.ReadAll(io.LimitReader(r, maxMetalink+1))
	switch {
	case err != nil:
		return Resolved{}, fault.Of(err)
	case len(doc) > maxMetalink:
		return Resolved{}, fault.New(fault.TooLarge, "the Metalink %s is over %d bytes", o.Name(), maxMetalink)
	}
	m, err := parseMetalink(doc, strings.TrimSuffix(path.Base(u.Path), path.Ext(u.Path)))
	if err != nil {
		return Resolved{}, err
	}
	return d.mirrors(u, m, headers)
}

// mirrors makes origins of what may be asked. What may not is only named when
// nothing else is left.
func (d *Download) mirrors(from *url.URL, m metalink, headers map[string]string) (Resolved, error) {
	out := Resolved{Checksums: m.hashes, Size: m.size}
	var refused []fault.Named
	for _, at := range m.mirrors {
		u, err := d.mirror(from, at.url, len(m.hashes) > 0 && strong(m.hashes[0]))
		if err != nil {
			refused = append(refused, fault.Named{Name: "mirror", Err: err})
			continue
		}
		o := &httpOrigin{client: d.client, url: u, size: m.size}
		if sameOrigin(from, u) {
			o.headers = headers
		}
		out.Origins = append(out.Origins, o)
		if len(out.Origins) == maxMirrors {
			break
		}
	}
	if len(out.Origins) > 0 {
		return out, nil
	}
	if f := fault.Join(refused...); f != nil {
		return Resolved{}, f
	}
	return Resolved{}, fault.New(fault.NoSource, "the Metalink %s names no mirror", redacted(from))
}

// mirror judges one URL of a document from elsewhere, which is trusted less
// than the operator's: it may not lead into this host's files, and what came
// by https may lead to http only with a hash that cannot be forged.
func (d *Download) mirror(from *url.URL, raw string, verified bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fault.New(fault.Scheme, "malformed URL: %w", withoutURL(err))
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fault.New(fault.Scheme, "scheme %q: only https and http can be a mirror's", u.Scheme)
	case u.Scheme == "http" && from.Scheme == "https" && !verified:
		return nil, fault.New(fault.Redirect, "the Metalink came by https, has no sha256 or sha512, and names %s", redacted(u))
	}
	u.User = nil
	return u, d.client.checkHost(u)
}

func strong(checksum string) bool {
	algorithm, _, _ := strings.Cut(checksum, ":")
	return slices.Contains([]string{"sha512", "sha256"}, algorithm)
}
