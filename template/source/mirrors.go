package source

import (
	"context"
	"io"
	"net/url"
	"path"
	"strings"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
)

// resolveMetalink reads the document and gives its mirrors as origins.
func (d *Download) resolveMetalink(ctx context.Context, o Origin, u *url.URL, headers map[string]string) (Resolved, error) {
	r, err := NewReader(ctx, o, At{}, ReaderOptions{})
	if err != nil {
		return Resolved{}, err
	}
	defer func() { _ = r.Close() }() // it was only read
	return d.client.readMetalink(r, u, headers)
}

func (c *client) readMetalink(r io.Reader, u *url.URL, headers map[string]string) (Resolved, error) {
	doc, err := io.ReadAll(io.LimitReader(r, maxMetalink+1))
	switch {
	case err != nil:
		return Resolved{}, fault.Of(err)
	case len(doc) > maxMetalink:
		return Resolved{}, fault.New(fault.TooLarge, "the Metalink %s is over %d bytes", redacted(u), maxMetalink)
	}
	m, err := parseMetalink(doc, strings.TrimSuffix(path.Base(u.Path), path.Ext(u.Path)))
	if err != nil {
		return Resolved{}, err
	}
	return c.mirrors(u, m, headers)
}

// mirrors makes origins of what may be asked. What may not is only named when
// nothing else is left.
func (c *client) mirrors(from *url.URL, m metalink, headers map[string]string) (Resolved, error) {
	out := Resolved{Checksums: m.hashes, Size: m.size}
	var refused []fault.Named
	for _, at := range m.mirrors {
		u, err := c.mirror(from, at.url, len(m.hashes) > 0 && strong(m.hashes[0]))
		if err != nil {
			refused = append(refused, fault.Named{Name: "mirror", Err: err})
			continue
		}
		o := &httpOrigin{client: c, url: u, size: m.size, isMirror: true}
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
func (c *client) mirror(from *url.URL, raw string, verified bool) (*url.URL, error) {
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
	return u, c.checkHost(u)
}

// openMirrors reads a Metalink that was found where an image was looked for,
// and opens the first of its mirrors that can be.
func (o *httpOrigin) openMirrors(ctx context.Context, doc Stream, at At) (Stream, error) {
	found, err := o.client.readMetalink(doc, o.url, o.headers)
	if err != nil {
		return Stream{}, err
	}
	var failed []fault.Named
	for _, m := range found.Origins {
		s, err := m.Open(ctx, at)
		if err == nil {
			return s, nil
		}
		failed = append(failed, fault.Named{Name: m.Name(), Err: err})
	}
	return Stream{}, fault.Join(failed...)
}

// strong tells whether nobody can make other bytes of the same checksum.
func strong(checksum string) bool {
	name, _ := digest.Split(checksum)
	return digest.Strength(name) >= digest.Strength(digest.SHA256)
}
