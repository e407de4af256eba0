package rebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// Volumes is what a rebuild does to files. Errors are those of package volume.
type Volumes interface {
	// Identify gives the identity of a file that is known to be meant.
	Identify(path string) (volume.Owned, error)
	// Reserve makes an empty file where none is: fs.ErrExist.
	Reserve(path string) (volume.Owned, error)
	// Format writes an empty image.
	Format(ctx context.Context, own volume.Owned, s volume.Spec) error
	// Fill copies a template's copy into it.
	Fill(ctx context.Context, base string, format volume.Format, own volume.Owned, s volume.Spec, p volume.Progress) error
	// Resemble gives it the owner and permissions of another file.
	Resemble(own volume.Owned, path string) error
	// Finish looks at the finished volume, and waits until it is on disk.
	Finish(own volume.Owned, s volume.Spec) error
	// Remove removes a file if it is the one and nobody has it open.
	Remove(own volume.Owned) error
}

// VolumeName names the volume that an operation makes for an instance. No other
// operation uses it, so that an empty file of that name after a crash is ours.
func VolumeName(ref api.Ref, operation, format string) string {
	name := ref.Name
	if project := cmp.Or(ref.Project, api.DefaultProject); project != api.DefaultProject {
		name = project + "." + name
	}
	id := strings.ToLower(operation)
	end := "-" + id[max(0, len(id)-12):] + "." + format
	// A project's name and an instance's may be longer together than a file's. It
	// is the end that tells it from others.
	for len(name)+len(end) > unix.NAME_MAX {
		_, last := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-last]
	}
	return name + end
}

// Files are the volumes of this host.
type Files struct{ Runner volume.Runner }

// Identify implements [Volumes].
func (Files) Identify(path string) (volume.Owned, error) { return volume.Identify(path) }

// Reserve implements [Volumes].
func (Files) Reserve(path string) (volume.Owned, error) { return volume.Reserve(path) }

// Format implements [Volumes].
func (f Files) Format(ctx context.Context, own volume.Owned, s volume.Spec) error {
	return own.Format(ctx, s, f.Runner)
}

// Fill implements [Volumes].
func (f Files) Fill(ctx context.Context, base string, format volume.Format, own volume.Owned, s volume.Spec, p volume.Progress) error {
	src, err := volume.Walk(base, format, nil)
	if err != nil {
		return err
	}
	return volume.Fill(ctx, src, own, s.Format, f.Runner, p)
}

// Finish implements [Volumes]. A new volume has one layer, or two: anything
// else would be another chain than the definition will name.
func (Files) Finish(own volume.Owned, s volume.Spec) error {
	roots := []string{filepath.Dir(own.Path)}
	layers := 1
	if s.Backing != "" {
		resolved, err := filepath.EvalSymlinks(s.Backing)
		if err != nil {
			return err
		}
		roots, layers = append(roots, filepath.Dir(resolved)), 2
	}
	chain, err := volume.Walk(own.Path, s.Format, roots)
	if err != nil {
		return err
	}
	var errs []error
	for _, issue := range chain.Issues() {
		errs = append(errs, fmt.Errorf("%w: %s", volume.ErrUnsafe, issue))
	}
	if len(chain) != layers || chain[0].VirtualSize != s.VirtualSize || layers == 2 && chain[1].Path != filepath.Clean(s.Backing) {
		errs = append(errs, fmt.Errorf("%w: made %d layers of %d bytes, asked for %d of %d", volume.ErrSpec, len(chain), chain[0].VirtualSize, layers, s.VirtualSize))
	}
	if err := errors.Join(append(errs, own.Verify())...); err != nil {
		return err
	}
	return own.Sync()
}

// Resemble implements [Volumes].
func (Files) Resemble(own volume.Owned, path string) error { return own.Resemble(path) }

// Remove implements [Volumes].
func (Files) Remove(own volume.Owned) error { return own.Remove() }
