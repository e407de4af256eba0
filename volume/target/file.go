package target

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// File connects what the host has already: a file, a folder or a block device.
// There is nothing to do but to look.
type File struct {
	// Folders, if any are given, must hold the path, after links are resolved.
	Folders []string
}

var (
	_ Connector = File{}
	_ Prober    = File{}
	_ Sizer     = File{}
)

// Connect returns the cleaned path if it exists, is of a kind that can hold a
// disk, and is allowed. Fails with ErrInvalid, ErrNotAllowed or fs.ErrNotExist.
func (f File) Connect(ctx context.Context, t Target) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	if !filepath.IsAbs(t.Path) || slices.Contains(strings.Split(t.Path, "/"), "..") {
		return "", fmt.Errorf("%w: path %q is not absolute and plain", ErrInvalid, t.Path)
	}
	resolved, err := filepath.EvalSymlinks(t.Path)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(resolved)
	if err != nil {
		return "", err
	}
	if m := info.Mode(); !m.IsRegular() && !m.IsDir() && !isBlock(m) {
		return "", fmt.Errorf("%w: %q is a %s", ErrInvalid, t.Path, m.Type())
	}
	if len(f.Folders) > 0 && !slices.ContainsFunc(f.Folders, func(folder string) bool { return within(folder, resolved) }) {
		return "", fmt.Errorf("%w: %q", ErrNotAllowed, t.Path)
	}
	return filepath.Clean(t.Path), nil
}

// Connected is always true: the path is not there by Connect's doing, so there
// is nothing that a Set could undo.
func (f File) Connected(context.Context, Target) (bool, error) { return true, nil }

// Disconnect has nothing to do.
func (f File) Disconnect(context.Context, Target) error { return nil }

// VirtualSize is the size of a block device, 0 for anything else: what a file
// holds depends on its format.
func (f File) VirtualSize(_ context.Context, t Target) (int64, error) { return blockSize(t.Path) }

func isBlock(m os.FileMode) bool { return m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0 }

// within says whether path is folder or lies in it, by whole components.
func within(folder, path string) bool {
	folder, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// blockSize is the size in bytes of the block device at path, 0 for another file.
func blockSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil || !isBlock(info.Mode()) {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}
