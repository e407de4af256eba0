package template

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// candidate is an origin, and what its bytes must be.
type candidate struct {
	source.Origin
	from string // FromURL, FromPeer or FromHost
	// want are the checksums of what it serves. None are known for peers of a
	// packed image that was never unpacked here, since its own are over the
	// packed bytes: a peer then vouches for the digest of the file.
	want []string
}

// state is what a copy is in while it comes from there.
func (c candidate) state() string {
	if c.from == FromURL {
		return StateDownloading
	}
	return StateSyncing
}

// proof gives the checksums of the bytes as a copy has them; none where only
// that of the packed image is known.
func (a *attempt) proof() []string {
	switch {
	case a.t.Digest != "":
		return []string{a.t.Digest}
	case !packed(a.t.URL):
		return []string{a.t.Checksum}
	}
	return nil
}

// asksPeersFirst: a copy that was ready once, or is to be synced, is brought
// from any peer that has it; else the first time the URL is what was asked for.
// Size is known once a copy was ready.
func (a *attempt) asksPeersFirst() bool {
	return a.t.Size > 0 || a.t.SyncFrom != "" || a.t.URL == ""
}

// near gives the origins that are asked before the URL: other pools of this
// host, and peers.
func (a *attempt) near() []candidate {
	want := a.proof()
	var out []candidate
	for _, c := range a.t.Copies {
		if c.State == StateReady && c.Pool != a.pool && len(want) > 0 {
			out = append(out, candidate{hostOrigin{c, a.t.Size}, FromHost, want})
		}
	}
	if a.asksPeersFirst() {
		for _, o := range a.peers(a.ctx, a.t) {
			out = append(out, candidate{o, FromPeer, want})
		}
	}
	return out
}

// far gives what the URL leads to.
func (a *attempt) far() ([]candidate, error) {
	if a.t.URL == "" {
		return nil, nil
	}
	found, err := a.fetcher.Resolve(a.ctx, source.Request{URL: a.t.URL, Headers: a.t.Headers})
	if err != nil {
		return nil, err
	}
	want := []string{a.t.Checksum}
	if len(found.Checksums) > 0 && found.Checksums[0] != a.t.Checksum {
		want = append(want, found.Checksums[0])
	}
	var out []candidate
	for _, o := range found.Origins {
		out = append(out, candidate{o, FromURL, want})
	}
	return out, nil
}

// packed tells whether a URL's name says that it serves a packed image.
func packed(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && slices.Contains([]string{".gz", ".xz", ".zst"}, path.Ext(u.Path))
}

// vouched gives the digest that a peer puts into its validator, where nothing
// else is known of the bytes. Peers' origins admit it only from one that the
// connection proves, for the same checksum.
func vouched(v source.Validator) ([]string, error) {
	sum, err := strconv.Unquote(v.ETag)
	if err != nil || digest.Check(sum) != nil {
		return nil, fault.New(fault.Peer, "does not say which digest its content has, and nobody else knows it")
	}
	return []string{sum}, nil
}

// hostOrigin is the copy on another pool of this host.
type hostOrigin struct {
	c    Copy
	size int64
}

func (o hostOrigin) Name() string { return fmt.Sprintf("pool %q", o.c.Pool) }

// Open reads the copy. A broken one is no fault of the copy to be made, whose
// other origins are still to be asked.
func (o hostOrigin) Open(_ context.Context, at source.At) (source.Stream, error) {
	file, err := os.OpenFile(o.c.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return source.Stream{}, &fault.Fault{Code: fault.Peer, Class: fault.Source, Err: err}
	}
	info, err := file.Stat()
	if err == nil && compare(o.c, o.size, info) >= altered {
		err = fmt.Errorf("%q was changed", o.c.Path)
	}
	if err == nil {
		_, err = file.Seek(at.Offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return source.Stream{}, &fault.Fault{Code: fault.Peer, Class: fault.Source, Err: err}
	}
	return source.Stream{ReadCloser: file, Offset: at.Offset, Allocated: allocated(info), Validator: source.Validator{Total: o.size}}, nil
}
