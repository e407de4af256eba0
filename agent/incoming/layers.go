package incoming

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// maxCandidates bounds how many files of equal size are read in search of one
// layer.
const maxCandidates = 16

// finder looks for backing layers among the files of this host's pools.
type finder struct {
	service *Service
	pools   []string
	inUse   activeLayers
	files   []candidate // listed once, on first use
	listed  bool
}

type candidate struct {
	path string
	size int64
}

// find answers for each backing layer, top first, whether this host has the
// same bytes. The top one may lie anywhere in the pools, because the new
// volume will name its path; each further one must be what the header above it
// names, because those headers are copied bytes and name what they name.
//
// Of several places the template's copy is best, for the registry keeps it. A
// disk on shared storage makes no new volume: what counts for it is the file at
// the very path.
func (f *finder) find(ctx context.Context, layers []api.Layer, shared bool) ([]api.LayerFacts, error) {
	out := make([]api.LayerFacts, len(layers))
	for i := range out {
		out[i] = api.LayerFacts{State: "missing"}
	}
	best := 0
	for _, path := range f.candidates(layers[0], shared) {
		got, err := f.compare(ctx, path, layers)
		if err != nil {
			return nil, err
		}
		// A file of equal size elsewhere that differs is just another file; at
		// the very path it is the trap that this search exists for.
		if n := sound(got); n > best || (best == 0 && path == layers[0].Path) {
			best, out = n, got
		}
		if best == len(layers) {
			break
		}
	}
	return out, nil
}

// sound counts the verified layers from the top.
func sound(l []api.LayerFacts) int {
	for i, f := range l {
		if f.State != "verified" {
			return i
		}
	}
	return len(l)
}

// candidates gives the files that may be the layer: a template copy with its
// digest and the same path, in the order that is wanted, then files of the same
// size.
func (f *finder) candidates(l api.Layer, samePathFirst bool) []string {
	var out []string
	seen := map[string]bool{}
	add := func(p string) {
		if !seen[p] && len(out) < maxCandidates {
			seen[p] = true
			out = append(out, p)
		}
	}
	inPools := false
	for _, dir := range f.pools {
		inPools = inPools || within(dir, l.Path)
	}
	info, err := os.Lstat(l.Path)
	there := err == nil && info.Mode().IsRegular() && inPools
	if there && samePathFirst {
		add(l.Path)
	}
	if path, _, ok := f.service.Templates.ReadyByDigest(l.Digest); ok {
		add(path)
	}
	if there {
		add(l.Path)
	}
	for _, c := range f.list() {
		if c.size == l.FileSize {
			add(c.path)
		}
	}
	return out
}

// list reads the pools' folders once for each request.
func (f *finder) list() []candidate {
	if f.listed {
		return f.files
	}
	f.listed = true
	for _, dir := range f.pools {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // an unreadable pool holds no usable layer
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				f.files = append(f.files, candidate{filepath.Join(dir, e.Name()), info.Size()})
			}
		}
	}
	return f.files
}

// compare walks the chain below path and compares it, layer by layer.
func (f *finder) compare(ctx context.Context, path string, layers []api.Layer) ([]api.LayerFacts, error) {
	out := make([]api.LayerFacts, len(layers))
	for i := range out {
		out[i] = api.LayerFacts{State: "missing"}
	}
	chain, walkErr := volume.Walk(path, volume.Format(layers[0].Format), f.pools)
	for i, l := range layers {
		if i >= len(chain) {
			if len(chain) == 0 && errors.Is(walkErr, fs.ErrNotExist) {
				return out, nil // gone since it was listed
			}
			if i == 0 || walkErr != nil {
				out[i] = api.LayerFacts{Path: path, State: "unreadable", Detail: fmt.Sprint(walkErr)}
				if i == 0 {
					out[i].State = "differs"
				}
			}
			return out, nil
		}
		digest, err := f.service.digest(ctx, chain[i].Path)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out[i] = api.LayerFacts{Path: chain[i].Path, Digest: digest, State: "differs"}
		switch {
		case err != nil:
			out[i].State, out[i].Detail = "unreadable", err.Error()
			return out, nil
		case digest != l.Digest || l.Digest == "":
			out[i].Detail = fmt.Sprintf("the source has %s, the destination %s", l.Digest, digest)
			return out, nil
		}
		if by := f.inUse.by(chain[i].Path); by != "" {
			out[i].Detail = fmt.Sprintf("it has the same bytes now, but %s writes to it", by)
			return out, nil
		}
		out[i].State = "verified"
		if p, id, ok := f.service.Templates.ReadyByDigest(digest); ok && p == chain[i].Path {
			out[i].Template = id
		}
	}
	if len(chain) > len(layers) || (walkErr != nil && len(chain) >= len(layers)) {
		last := &out[len(out)-1]
		last.State, last.Detail = "differs", "it stands on a further layer at the destination"
	}
	return out, nil
}

// within tells whether path lies in the folder, compared by whole elements.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && rel != ".." && !filepath.IsAbs(rel) && (len(rel) < 3 || rel[:3] != "../")
}
