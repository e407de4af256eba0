package leftover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

// Hypervisor is what the package asks of libvirt.
type Hypervisor interface {
	Domains(ctx context.Context) ([]hypervisor.Domain, error)
	// XML returns hypervisor.ErrNoDomain for a domain that is gone.
	XML(ctx context.Context, name string, inactive bool) (string, error)
	RefreshPool(ctx context.Context, name string) error
}

// Named adds the paths that one part of the agent owns, each with whom for. It
// returns an error where it cannot know them all.
type Named func(add func(by string, paths ...string)) error

// Service finds and deletes leftovers. All fields are required.
type Service struct {
	Hypervisor Hypervisor
	// Pools gives this host's pools.
	Pools func(ctx context.Context) ([]api.Pool, error)
	// Chains gives what all instances stand on, and the volumes of the pools
	// that name a layer below them.
	Chains  func(ctx context.Context) (template.Chains, error)
	Records record.Dir
	Named   []Named
	Log     *slog.Logger
	Now     func() time.Time

	mu sync.Mutex // one deletion at a time
}

// List gives what nobody owns. An error says that this cannot be told.
func (s *Service) List(ctx context.Context) ([]api.Leftover, error) {
	_, out, err := s.look(ctx)
	return out, err
}

func (s *Service) look(ctx context.Context) ([]File, []api.Leftover, error) {
	files, err := s.files(ctx)
	if err != nil {
		return nil, nil, unknown(err)
	}
	owners, onlyOurs, err := s.owners(ctx)
	if err != nil {
		return nil, nil, unknown(err)
	}
	return files, Decide(files, owners, onlyOurs, s.Now()), nil
}

func unknown(err error) error {
	return api.NewProblem("not-ready", "what nobody owns cannot be told: %w", err).WithHint("nothing is taken for left over while anything that may own it cannot be read")
}

// Delete removes those of the paths that nobody owns, by another look just
// before, and that no process has open. What stays is told with the reason.
func (s *Service) Delete(ctx context.Context, paths []string) (api.LeftoversDeleted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := api.LeftoversDeleted{Deleted: []string{}, Kept: []api.LeftoverKept{}}
	files, left, err := s.look(ctx)
	if err != nil {
		return out, err
	}
	pools := map[string]bool{}
	for _, path := range paths {
		at := slices.IndexFunc(left, func(l api.Leftover) bool { return l.Path == path })
		if at < 0 {
			out.Kept = append(out.Kept, api.LeftoverKept{Path: path, Why: "it is not left over: it has an owner, or is not there"})
			continue
		}
		f := files[slices.IndexFunc(files, func(f File) bool { return f.ID.Path == path })]
		if err := remove(f); err != nil {
			out.Kept = append(out.Kept, api.LeftoverKept{Path: path, Why: err.Error()})
			continue
		}
		s.Log.Warn("deleted what was left over", "path", path, "pool", f.Pool, "bytes", f.Bytes, "kind", left[at].Kind)
		out.Deleted = append(out.Deleted, path)
		pools[f.Pool] = true
	}
	for p := range pools {
		if err := s.Hypervisor.RefreshPool(ctx, p); err != nil {
			s.Log.Warn("refreshing a pool", "pool", p, "error", err)
		}
	}
	return out, nil
}

// remove deletes a file, or one of our own folders with the files in it, each
// only if it is the one that was seen and nobody has it open.
func remove(f File) error {
	if !f.Dir {
		return f.ID.Remove()
	}
	if !strings.HasPrefix(filepath.Base(f.ID.Path), ourPrefix) {
		return fmt.Errorf("%s is a folder that Wherry has not made", f.ID.Path)
	}
	if err := f.ID.Verify(); err != nil {
		return err
	}
	entries, err := os.ReadDir(f.ID.Path)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		id, err := volume.Identify(filepath.Join(f.ID.Path, e.Name()))
		if err == nil {
			err = id.Remove()
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(f.ID.Path)
}
