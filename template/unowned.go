package template

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Kinds of files that nobody owns.
const (
	UnownedTemplate = "template" // published by somebody, registered by nobody
	UnownedPartial  = "partial"  // of a fetch that nobody goes on with
	UnownedForeign  = "foreign"  // moved aside: it lay where a copy belongs
)

// Unowned is a file or folder in a pool that bears a name of ours and is part
// of no copy. It is shown and never deleted: a name is no proof.
type Unowned struct {
	Pool, Path, Kind string
	Bytes            int64 // on disk
	ModifiedAt       time.Time
}

// Unowned lists what nobody owns, as of the last look that Tend took.
func (r *Registry) Unowned() []Unowned {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.unowned)
}

// findUnowned looks for what nobody owns. Pools that other hosts have too are
// left out: what lies there may be theirs. While pools cannot be read, what was
// found before stays.
func (r *Registry) findUnowned(ctx context.Context) {
	pools, err := r.pools(ctx)
	if err != nil {
		r.log.Debug("pools are not known", "error", err)
		return
	}
	var found []Unowned
	for _, p := range pools {
		if p.Shared || p.Path == "" {
			continue
		}
		// Owned as of now, and after the folder was read: what a fetch makes
		// meanwhile is journalled before it appears.
		entries, err := os.ReadDir(p.Path)
		if err != nil {
			r.log.Debug("a pool's folder cannot be read", "pool", p.Name, "error", err)
			continue
		}
		found = append(found, unownedIn(p, entries, r.owned())...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unowned = found
}

// owned gives the paths of all copies and partial files.
func (r *Registry) owned() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]bool{}
	for _, t := range r.templates {
		for _, c := range t.Copies {
			out[c.Path], out[c.Partial] = true, true
		}
	}
	return out
}

// kindOf tells what a name in a pool's folder stands for, "" for nothing of
// ours.
func kindOf(name string) string {
	switch {
	case strings.HasPrefix(name, partialPrefix):
		return UnownedPartial
	case !strings.HasPrefix(name, filePrefix):
		return ""
	case strings.Contains(name, foreignMark):
		return UnownedForeign
	}
	return UnownedTemplate
}

// unownedIn picks what nobody owns out of a pool's folder, by path.
func unownedIn(p Pool, entries []fs.DirEntry, owned map[string]bool) []Unowned {
	var out []Unowned
	for _, e := range entries {
		path := filepath.Join(filepath.Clean(p.Path), e.Name())
		kind := kindOf(e.Name())
		if kind == "" || owned[path] {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // gone since it was listed
		}
		out = append(out, Unowned{Pool: p.Name, Path: path, Kind: kind, Bytes: onDisk(path, info), ModifiedAt: info.ModTime()})
	}
	return out
}

// onDisk gives the bytes that a file takes, or a folder with the files in it.
func onDisk(path string, info fs.FileInfo) int64 {
	if !info.IsDir() {
		return allocated(info)
	}
	var sum int64
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += allocated(info)
		}
	}
	return sum
}

// allocated gives the bytes that a file takes on its file system.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512 // what stat(2) counts in, whatever the file system's block
	}
	return info.Size()
}
