package leftover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

// files lists the folders of those pools that are active and this host's own,
// all at once. One that does not answer is skipped: nothing in it is taken for
// left over.
func (s *Service) files(ctx context.Context, pools []api.Pool) (out []File, hung []string, skipped []api.LeftoverSkipped, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	type listing struct {
		pool, dir string
		*look[[]File]
	}
	var all []listing
	seen := map[string]bool{}
	for _, p := range pools {
		dir := filepath.Clean(p.Path)
		if !p.Active || p.Identity != "" || !filepath.IsAbs(p.Path) || seen[dir] {
			continue // see Skipped
		}
		seen[dir] = true
		read := s.Folder
		if read == nil {
			read = folder
		}
		all = append(all, listing{p.Name, dir, s.folders.begin(dir, func() ([]File, error) { return read(p.Name, dir) })})
	}
	for _, l := range all {
		found, err := l.wait(ctx)
		switch {
		case errors.Is(err, errNoAnswer):
			hung = append(hung, l.dir)
			skipped = append(skipped, api.LeftoverSkipped{What: "pool " + l.pool, Why: err.Error()})
		case err != nil:
			return nil, nil, nil, fmt.Errorf("pool %q: %w", l.pool, err)
		}
		out = append(out, found...)
	}
	return out, hung, skipped, nil
}

// folder lists the folder of one pool.
func folder(pool, dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []File
	for _, e := range entries {
		if !e.Type().IsRegular() && !e.IsDir() {
			continue
		}
		if f, err := fileAt(pool, filepath.Join(dir, e.Name())); err == nil {
			out = append(out, f)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return out, nil
}

func fileAt(pool, path string) (File, error) {
	id, err := volume.Identify(path)
	if err != nil {
		return File{}, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return File{}, err
	}
	f := File{Pool: pool, ID: id, Dir: info.IsDir(), Bytes: allocated(info), ModifiedAt: info.ModTime()}
	if !f.Dir {
		return f, nil
	}
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			f.Bytes += allocated(info)
		}
	}
	return f, err
}

func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// owners gathers what anything of this host names. It is asked after the
// folders were read: what is made meanwhile is written down before it appears.
//
// Snapshots name files of their own, which this does not read: with any, only
// what bears a name of ours can be told to be nobody's. So it is where a folder
// does not answer: what its volumes stand on is not known.
func (s *Service) owners(ctx context.Context, hung []string) (out []Owner, onlyOurs bool, err error) {
	var named []Owner
	add := func(by string, paths ...string) {
		for _, p := range paths {
			if filepath.IsAbs(p) {
				named = append(named, Owner{Path: filepath.Clean(p), By: by})
			}
		}
	}
	domains, err := s.Hypervisor.Domains(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("instances: %w", err)
	}
	for _, d := range domains {
		onlyOurs = onlyOurs || d.Snapshots > 0
		if d.Incoming {
			continue // known by its reservation
		}
		for _, inactive := range []bool{false, true} {
			if inactive && !d.Persistent {
				continue
			}
			xml, err := s.Hypervisor.XML(ctx, d.Name, inactive)
			if errors.Is(err, hypervisor.ErrNoDomain) {
				continue // gone since the list was made
			}
			if err != nil {
				return nil, false, fmt.Errorf("instance %q: %w", d.Name, err)
			}
			add(fmt.Sprintf("instance %q", d.Name), pathsIn(xml)...)
		}
	}
	var chains template.Chains
	if len(hung) == 0 {
		chains, err = s.Chains(ctx)
	}
	if err != nil {
		return nil, false, fmt.Errorf("chains: %w", err)
	}
	if len(chains.Unread) > 0 {
		return nil, false, fmt.Errorf("what instances stand on is not known: %s", strings.Join(chains.Unread, "; "))
	}
	for _, u := range chains.Uses {
		for i, l := range u.Layers {
			if u.Instance != "" || i > 0 {
				// A volume that nobody has is not its own owner, but what lies
				// below it is not to go first.
				out = append(out, Owner{Path: l.Path, By: "a layer of " + u.Volume, Dev: l.Dev, Ino: l.Ino})
			}
		}
	}
	records, err := s.Records.List()
	if err != nil {
		return nil, false, fmt.Errorf("records: %w", err)
	}
	for _, r := range records {
		add(fmt.Sprintf("the record of %q", r.Name), pathsIn(r.DomainXML)...)
		for _, d := range r.Disks {
			add(fmt.Sprintf("the record of %q", r.Name), d.Path)
		}
	}
	for _, named := range s.Named {
		if err := named(add); err != nil {
			return nil, false, err
		}
	}
	known, err := s.identify(ctx, named, hung)
	return append(out, known...), onlyOurs, err
}

// identify adds which files the owners' paths lead to. Those within a folder
// that does not answer are known by their paths alone.
func (s *Service) identify(ctx context.Context, owners []Owner, hung []string) ([]Owner, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	within := func(o Owner) bool {
		return slices.ContainsFunc(hung, func(dir string) bool { return strings.HasPrefix(o.Path, dir+"/") })
	}
	reading := newLook(func() ([]Owner, error) {
		out := slices.Clone(owners)
		for i := range out {
			if !within(out[i]) {
				out[i] = identified(out[i])
			}
		}
		return out, nil
	})
	out, err := reading.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("the files that have an owner: %w", err)
	}
	return out, nil
}

func identified(o Owner) Owner {
	if info, err := os.Stat(o.Path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			o.Dev, o.Ino = st.Dev, st.Ino
		}
	}
	return o
}

// pathsIn gives all that looks like a whole path in an XML text, in whatever
// element or attribute: disks, media, firmware, kernels, what an extension of
// QEMU's command line names. One too many only keeps a file.
func pathsIn(xml string) []string {
	var out []string
	for _, word := range strings.FieldsFunc(xml, func(r rune) bool { return r == '<' || r == '>' || r == '"' || r == '\'' }) {
		word = html.UnescapeString(strings.TrimSpace(word))
		// Arguments of QEMU: a list of key=value, or JSON.
		parts := strings.FieldsFunc(word, func(r rune) bool { return r == ',' || r == '=' || r == '"' })
		if len(parts) > 1 {
			parts = append(parts, word)
		}
		for _, part := range parts {
			if len(part) > 1 && part[0] == '/' {
				out = append(out, part)
			}
		}
	}
	return out
}

// PathsInJSON gives all texts in a JSON value that are whole paths, and those
// within XML that it holds.
func PathsInJSON(value []byte) ([]string, error) {
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, err
	}
	var out []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if strings.HasPrefix(v, "/") {
				out = append(out, v)
			} else if strings.Contains(v, "<") {
				out = append(out, pathsIn(v)...)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				walk(k)
				walk(e)
			}
		}
	}
	walk(v)
	return out, nil
}
