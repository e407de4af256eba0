package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxDepth bounds a chain: longer ones are a forgery or a mistake.
const MaxDepth = 64

// Chain is what a disk stands on: the active layer first, then each backing
// layer down to the base.
type Chain []Layer

// Walk reads the chain that begins at path, whose format the caller knows.
// Each further layer must have its format recorded in the header above
// (ErrBackingFormatUnknown), be a plain path (ErrBackingProtocol), exist, and
// after all links are resolved lie under one of roots (ErrOutsideRoots); with
// no roots an image with a backing file is refused. A chain that loops
// (ErrLoop, by device and inode) or has more than MaxDepth layers (ErrTooDeep)
// is refused. Data files are never opened.
//
// Every error is a *LayerError naming the file, and comes with the layers read
// before it. A chain read without error may still be unfit: see Chain.Issues.
func Walk(path string, format Format, roots []string) (Chain, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, &LayerError{Path: path, Err: err}
	}
	allowed := resolveRoots(roots)
	var chain Chain
	var via string
	for {
		layer, err := step(chain, path, format, allowed)
		if err != nil {
			return chain, &LayerError{Path: path, Via: via, Err: err}
		}
		chain = append(chain, layer)
		if layer.BackingFile == "" {
			return chain, nil
		}
		via = layer.Path
		path, err = backingPath(layer.Path, layer.BackingFile)
		if err == nil && layer.BackingFormat == "" {
			err = ErrBackingFormatUnknown
		}
		if err != nil {
			return chain, &LayerError{Path: layer.BackingFile, Via: via, Err: err}
		}
		format = layer.BackingFormat
	}
}

// step reads the next layer of chain, found at path.
func step(chain Chain, path string, format Format, roots []string) (Layer, error) {
	if len(chain) == MaxDepth {
		return Layer{}, fmt.Errorf("%w: over %d layers", ErrTooDeep, MaxDepth)
	}
	if !format.known() {
		if format == "" {
			return Layer{}, ErrFormatUnknown
		}
		return Layer{}, fmt.Errorf("%w: %q", ErrFormatUnsupported, format)
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Layer{}, err
	}
	if len(chain) > 0 && !under(resolved, roots) {
		return Layer{}, ErrOutsideRoots
	}
	f, err := openResolved(resolved)
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	layer, err := readLayer(f, path, format)
	if err != nil {
		return Layer{}, err
	}
	same := func(l Layer) bool { return l.Dev == layer.Dev && l.Ino == layer.Ino }
	if slices.ContainsFunc(chain, same) {
		return Layer{}, ErrLoop
	}
	return layer, nil
}

// openResolved opens a path that was checked against the allowed folders. The
// descriptor must still stand for that very path: a link put into one of its
// folders after the check would lead elsewhere.
func openResolved(path string) (*os.File, error) {
	f, err := openImage(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	now, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		f.Close()
		return nil, err
	}
	if now != path {
		f.Close()
		return nil, fmt.Errorf("%w: %q became %q while it was opened", ErrOutsideRoots, path, now)
	}
	return f, nil
}

// backingPath is the path that QEMU would open for a backing name found in the
// image at path: relative names count from the folder of the image as it was
// named, and a colon before the first slash makes a protocol.
func backingPath(image, name string) (string, error) {
	if i := strings.IndexAny(name, ":/"); i >= 0 && name[i] == ':' {
		return "", ErrBackingProtocol
	}
	if !filepath.IsAbs(name) {
		name = image[:strings.LastIndexByte(image, '/')+1] + name
	}
	// Cleaning is safe only without "..": behind a linked folder, the parent
	// by name and the parent on disk differ.
	if slices.Contains(strings.Split(name, "/"), "..") {
		return name, nil
	}
	return filepath.Clean(name), nil
}

// resolveRoots resolves the allowed folders; one that does not exist allows nothing.
func resolveRoots(roots []string) []string {
	var out []string
	for _, root := range roots {
		if resolved, err := filepath.EvalSymlinks(root); err == nil && filepath.IsAbs(resolved) {
			out = append(out, resolved)
		}
	}
	return out
}

// under says whether path lies in one of roots, compared by whole components.
func under(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return root == "/" || strings.HasPrefix(path, root+"/")
	})
}
