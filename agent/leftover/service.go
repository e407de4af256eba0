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

// Service finds and deletes leftovers. All fields but Folder are required.
type Service struct {
	Hypervisor Hypervisor
	// Pools gives this host's pools.
	Pools func(ctx context.Context) ([]api.Pool, error)
	// Chains gives what all instances stand on, and the volumes of the pools
	// that name a layer below them.
	Chains  func(ctx context.Context) (template.Chains, error)
	Records record.Dir
	Named   []Named
	Machine Machine
	Power   Power
	Journal Journal
	// SecretSince says since when libvirt keeps a secret; zero = not known.
	SecretSince func(uuid string) time.Time
	Log         *slog.Logger
	Now         func() time.Time
	// Folder lists what lies in a pool's folder; nil = as it is.
	Folder func(pool, dir string) ([]File, error)

	folders looks[[]File]
	mu      sync.Mutex // one deletion at a time
}

// List gives what nobody owns, and what was not looked at. An error says that
// this cannot be told.
func (s *Service) List(ctx context.Context) (api.LeftoverList, error) {
	v, err := s.look(ctx)
	return api.LeftoverList{Leftovers: v.left, Skipped: v.skipped}, err
}

// view is one look at the host.
type view struct {
	files   []File
	things  Things
	left    []api.Leftover
	skipped []api.LeftoverSkipped
}

func (s *Service) look(ctx context.Context) (view, error) {
	v := view{left: []api.Leftover{}, skipped: []api.LeftoverSkipped{}}
	pools, err := s.Pools(ctx)
	if err != nil {
		return v, unknown(fmt.Errorf("pools: %w", err))
	}
	v.skipped = append(v.skipped, Skipped(pools)...)
	files, hung, without, err := s.files(ctx, pools)
	if err != nil {
		return v, unknown(err)
	}
	v.files, v.skipped = files, append(v.skipped, without...)
	owners, onlyOurs, err := s.owners(ctx, hung)
	if err != nil {
		return v, unknown(err)
	}
	if onlyOurs {
		v.skipped = append(v.skipped, api.LeftoverSkipped{What: "files of other names", Why: "an instance has snapshots, and which files those need is not read"})
	}
	if len(hung) > 0 {
		onlyOurs = true
		v.skipped = append(v.skipped, api.LeftoverSkipped{What: "files of other names", Why: "what the volumes stand on that lie in " + strings.Join(hung, ", ") + " is not known"})
	}
	things, skipped, claims, ended, err := s.things(ctx)
	if err != nil {
		return v, unknown(err)
	}
	v.things, v.skipped = things, append(v.skipped, skipped...)
	v.left = append(DecideThings(things, claims, ended, s.Now()), Decide(v.files, owners, onlyOurs, s.Now())...)
	return v, nil
}

func unknown(err error) error {
	return api.NewProblem("not-ready", "what nobody owns cannot be told: %w", err).WithHint("nothing is taken for left over while anything that may own it cannot be read")
}

// Delete removes those of the ids that nobody owns, by another look just
// before, files only while no process has them open. What stays is told with
// the reason.
func (s *Service) Delete(ctx context.Context, ids []string) (api.LeftoversDeleted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := api.LeftoversDeleted{Deleted: []string{}, Kept: []api.LeftoverKept{}}
	v, err := s.look(ctx)
	if err != nil {
		return out, err
	}
	pools := map[string]bool{}
	for _, id := range ids {
		at := slices.IndexFunc(v.left, func(l api.Leftover) bool { return l.ID == id })
		if at < 0 {
			out.Kept = append(out.Kept, api.LeftoverKept{Path: id, Why: "it is not left over: it has an owner, or is not there"})
			continue
		}
		l := v.left[at]
		if err := s.delete(ctx, l, v); err != nil {
			out.Kept = append(out.Kept, api.LeftoverKept{Path: id, Why: err.Error()})
			continue
		}
		s.Log.Warn("deleted what was left over", "id", id, "pool", l.Pool, "bytes", l.Bytes, "kind", l.Kind, "operation", l.Operation)
		s.Journal.Publish(api.Event{Kind: "host", At: s.Now().UTC(), Instance: l.Instance, Detail: fmt.Sprintf("deleted what was left over, a %s: %s", l.Kind, id)})
		out.Deleted = append(out.Deleted, id)
		if l.Pool != "" {
			pools[l.Pool] = true
		}
	}
	for p := range pools {
		if err := s.Hypervisor.RefreshPool(ctx, p); err != nil {
			s.Log.Warn("refreshing a pool", "pool", p, "error", err)
		}
	}
	return out, nil
}

func (s *Service) delete(ctx context.Context, l api.Leftover, v view) error {
	at := slices.IndexFunc(v.files, func(f File) bool { return f.ID.Path == l.ID })
	if at < 0 {
		return s.removeThing(ctx, l, v.things)
	}
	return remove(v.files[at])
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
