package chains

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

// stray adds the volumes of the pools that stand on something and belong to no
// instance of this host: of one that was undefined with its disks kept, or of
// another host that has the same storage. Only the layer right below is named:
// what lies below that has a header of its own, in some pool.
func stray(ctx context.Context, pools []api.Pool, out *template.Chains) {
	known := map[string]bool{}
	for _, u := range out.Uses {
		known[u.Volume] = true
	}
	for _, p := range pools {
		if p.Path == "" || !isFolder(p) {
			continue
		}
		entries, err := os.ReadDir(p.Path)
		if err != nil {
			out.Unread = append(out.Unread, fmt.Sprintf("pool %q: %v", p.Name, err))
			continue
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				out.Unread = append(out.Unread, fmt.Sprintf("pool %q: %v", p.Name, ctx.Err()))
				return
			}
			path := filepath.Join(p.Path, e.Name())
			if !e.Type().IsRegular() || known[path] {
				continue
			}
			known[path] = true
			u, err := below(path)
			if err != nil {
				out.Unread = append(out.Unread, fmt.Sprintf("pool %q: %v", p.Name, err))
			}
			if len(u.Layers) > 1 {
				out.Uses = append(out.Uses, u)
			}
		}
	}
}

// alone adds what the volumes stand on that no instance was found to have. One
// that cannot be read stays what the store says of it.
func alone(ctx context.Context, volumes []string, out *template.Chains) {
	for _, path := range volumes {
		if slices.ContainsFunc(out.Uses, func(u template.Use) bool { return u.Volume == path }) {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			// Without its folder, a file system may only not be mounted.
			if _, err := os.Stat(filepath.Dir(path)); err == nil {
				out.Gone = append(out.Gone, path)
			}
			continue
		}
		if u, err := below(path); err == nil && len(u.Layers) > 0 {
			out.Uses = append(out.Uses, u)
		}
	}
}

// below reads which backing file a volume's header names, if it has one. What
// is no qcow2 image stands alone: no other format that is made here names one.
func below(path string) (template.Use, error) {
	layer, err := volume.Inspect(path, volume.FormatQcow2)
	switch {
	case errors.Is(err, volume.ErrNotQcow2), errors.Is(err, volume.ErrHeader), errors.Is(err, fs.ErrNotExist), errors.Is(err, volume.ErrFileType):
		return template.Use{}, nil
	case err != nil:
		return template.Use{}, err
	}
	u := template.Use{Volume: path, Layers: []template.File{template.FileAt(path)}}
	data, err := dataFile(layer)
	if err != nil {
		return u, err
	}
	if data != "" {
		u.Layers = append(u.Layers, template.FileAt(data))
	}
	if layer.BackingFile == "" {
		return u, nil
	}
	backing := strings.TrimPrefix(layer.BackingFile, "file:")
	switch {
	case strings.HasPrefix(backing, "json:"):
		return u, fmt.Errorf("volume %q describes its backing file in JSON", path)
	case !filepath.IsAbs(backing):
		// What names another protocol becomes a path that nobody has.
		backing = filepath.Join(filepath.Dir(path), backing)
	}
	u.Layers = append(u.Layers, template.FileAt(backing))
	return u, nil
}

// dataFile gives the file that has what was written to the layer, where that is
// another one and its header names it; "" for none.
func dataFile(l volume.Layer) (string, error) {
	name := strings.TrimPrefix(l.DataFile, "file:")
	switch {
	case name == "":
		return "", nil
	case strings.HasPrefix(name, "json:"):
		return "", fmt.Errorf("%q describes its data file in JSON", l.Path)
	case !filepath.IsAbs(name):
		name = filepath.Join(filepath.Dir(l.Path), name)
	}
	return name, nil
}
