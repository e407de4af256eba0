package incoming

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// prepare stages templates, makes the volumes and fills the seeded ones. It
// runs beside the request, ends with the reservation, and on failure removes
// at once whatever it made.
func (s *Service) prepare(e *entry) {
	ctx := e.ctx
	defer e.cancel()
	defer close(e.done)
	created := func() {
		select {
		case <-e.created:
		default:
			close(e.created)
		}
	}
	defer created()
	err := s.makeAll(ctx, e, created)
	if err == nil {
		err = s.update(e, func(r *reservation) { r.State = ready })
	}
	if err == nil {
		return
	}
	s.Log.Error("preparing for an instance failed", "reservation", e.id, "error", err)
	clean := s.removeVolumes(e)
	if clean != nil {
		s.Log.Error("volumes of a failed reservation remain", "reservation", e.id, "error", clean)
	}
	problem := api.AsProblem(err)
	if err := s.update(e, func(r *reservation) { r.State, r.Error, r.Owes = failed, problem, clean != nil }); err != nil {
		s.Log.Error("journalling a failed reservation", "reservation", e.id, "error", err)
	}
}

func (s *Service) makeAll(ctx context.Context, e *entry, created func()) error {
	disks := slices.Clone(e.snapshot().Request.Disks)
	if err := s.stage(ctx, e, disks); err != nil {
		return err
	}
	for i := range disks {
		place, err := s.makeVolume(ctx, e, disks[i])
		if err != nil {
			return diskProblem(err, disks[i].Target)
		}
		if err := s.update(e, func(r *reservation) { r.Places = append(slices.Clone(r.Places), place) }); err != nil {
			return err
		}
	}
	fills := func(d api.IncomingDisk) bool { return d.Seed != nil && !d.Existing }
	// Where nothing takes long the source hears at once that all is ready, and
	// need not ask again.
	if slices.ContainsFunc(disks, fills) {
		created()
	}
	for _, d := range disks {
		if !fills(d) {
			continue
		}
		if err := s.fill(ctx, e, d); err != nil {
			return diskProblem(err, d.Target)
		}
	}
	return nil
}

func diskProblem(err error, disk string) error {
	var p *api.Problem
	if errors.As(err, &p) {
		if p.Disk == "" {
			p.Disk = disk
		}
		return err
	}
	code := "peer-failed"
	if errors.Is(err, unix.ENOSPC) {
		code = "no-space"
	}
	return api.NewProblem(code, "%w", err).WithDisk(disk)
}

// stage brings missing templates from the source and points the disks that
// stand on them at this host's copies.
func (s *Service) stage(ctx context.Context, e *entry, disks []api.IncomingDisk) error {
	for _, l := range e.snapshot().Request.Stage {
		path, err := s.Templates.Stage(ctx, l, func(done, total int64) {
			e.setProgress(api.Progress{BytesDone: done, BytesTotal: total})
		})
		if err != nil {
			return api.NewProblem("template-failed", "copying template %q to the destination: %w", l.Template, err)
		}
		digest, err := s.Digester.Digest(ctx, path)
		if err != nil || digest != l.Layer.Digest {
			return api.NewProblem("template-failed", "template %q arrived with %s, the source has %s (%v)", l.Template, digest, l.Layer.Digest, err)
		}
		for i := range disks {
			if b := disks[i].Place.Backing; b != nil && b.Path == l.Layer.Path && b.Digest == l.Layer.Digest {
				moved := *b
				moved.Path = path
				if at, id, ok := s.Templates.ReadyByDigest(digest); ok && at == path {
					moved.Template = id // it may have been here under another name
				}
				disks[i].Place.Backing = &moved
				disks[i].Place.Chain = []api.Layer{moved}
			}
		}
	}
	return nil
}

// makeVolume makes one fresh volume, under its own name if that is free, else
// beside it. Nothing existing is ever opened for writing.
func (s *Service) makeVolume(ctx context.Context, e *entry, d api.IncomingDisk) (api.IncomingPlace, error) {
	place := api.IncomingPlace{Target: d.Target, Path: d.Place.Path, Format: d.Place.Format, Backing: d.Place.Backing, Chain: d.Place.Chain}
	if d.Existing {
		return place, nil
	}
	dir := filepath.Dir(d.Place.Path)
	temp := filepath.Join(dir, fmt.Sprintf(".wherry-%s-%s", e.id, d.Target))
	if err := s.inPool(ctx, dir); err != nil {
		return place, err
	}
	folder, err := identifyFolder(dir)
	if err != nil {
		return place, fmt.Errorf("making a volume in %s: %w", dir, err)
	}
	if err := s.update(e, func(r *reservation) {
		r.Volumes = append(slices.Clone(r.Volumes), madeVolume{Target: d.Target, Temp: temp, Folder: &folder, Names: finalNames(d.Place.Path, e.id, d.Target)})
	}); err != nil {
		return place, err
	}
	// The ref before the look at the bytes: a template that is removed from
	// now on keeps its copy.
	if err := s.keepBase(ctx, e.snapshot().Request, place, temp); err != nil {
		return place, err
	}
	if err := s.verifyBacking(ctx, d.Place.Chain); err != nil {
		return place, err
	}
	owned, err := volume.Reserve(temp)
	if err != nil {
		return place, fmt.Errorf("making a volume in %s: %w", dir, err)
	}
	if err := s.own(e, d.Target, owned); err != nil {
		return place, err
	}
	spec := volume.Spec{Path: temp, Format: volume.Format(d.Place.Format), VirtualSize: d.VirtualSize,
		ClusterSize: d.ClusterSize, Compat: d.Compat, ExtendedL2: d.ExtendedL2}
	if b := d.Place.Backing; b != nil {
		spec.Backing, spec.BackingFormat = b.Path, volume.Format(b.Format)
	}
	if err := owned.Format(ctx, spec, s.Runner); err != nil {
		return place, fmt.Errorf("making volume %s: %w", d.Place.Path, err)
	}
	final, err := takeName(temp, finalNames(d.Place.Path, e.id, d.Target))
	if err != nil {
		return place, err
	}
	owned.Path, place.Path = final, final
	if err := s.own(e, d.Target, owned); err != nil {
		return place, err
	}
	if err := s.keepBase(ctx, e.snapshot().Request, place, final); err != nil {
		return place, err
	}
	return place, s.dropRef(temp)
}

// own journals what was made for a disk.
func (s *Service) own(e *entry, target string, o volume.Owned) error {
	return s.update(e, func(r *reservation) {
		r.Volumes = slices.Clone(r.Volumes)
		for i := range r.Volumes {
			if r.Volumes[i].Target == target {
				r.Volumes[i].Owned = &o
			}
		}
	})
}

// takeName gives the file its final name without replacing anything: the
// wanted one, or one with the reservation's id in it.
func takeName(temp string, names []string) (string, error) {
	for _, name := range names {
		err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			err = relink(temp, name)
		}
		if err == nil {
			return name, syncFolder(filepath.Dir(name))
		}
		if !errors.Is(err, unix.EEXIST) {
			return "", fmt.Errorf("naming volume %s: %w", name, err)
		}
	}
	return "", fmt.Errorf("a file exists under each of %s", strings.Join(names, ", "))
}

// relink is a rename that replaces nothing for file systems that know none, such
// as NFS. Until it has ended the file has both names, which are both journalled.
func relink(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// finalNames are the names that a volume may get, in order of preference. Disks
// from several folders may have one name, so the last one has the target in it.
func finalNames(wanted, id, target string) []string {
	ext := filepath.Ext(wanted)
	own := strings.TrimSuffix(wanted, ext) + "-" + strings.ToLower(id[max(0, len(id)-8):])
	return []string{wanted, own + ext, own + "-" + target + ext}
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}

// inPool refuses a folder that is no active pool of this host: a peer may not
// have files made just anywhere.
func (s *Service) inPool(ctx context.Context, dir string) error {
	host, err := s.Host.Host(ctx)
	if err != nil {
		return err
	}
	for _, p := range host.Pools {
		if p.Active && p.Path != "" && filepath.Clean(p.Path) == filepath.Clean(dir) {
			return nil
		}
	}
	return api.NewProblem("refused", "%s is not the folder of an active pool of the destination", dir)
}

// verifyBacking looks at the backing layers once more, just before a volume is
// made to stand on them or filled from them: a template may have been replaced
// since the plan, or somebody may have begun to write to it.
func (s *Service) verifyBacking(ctx context.Context, chain []api.Layer) error {
	if len(chain) == 0 {
		return nil
	}
	domains, err := s.domains(ctx)
	if err != nil {
		return err
	}
	inUse, err := s.activeLayers(ctx, domains)
	if err != nil {
		return err
	}
	for _, l := range chain {
		if by := inUse.by(l.Path); by != "" {
			return api.NewProblem("chain-unsafe", "%s has begun to write to backing layer %s", by, l.Path)
		}
		digest, err := s.digest(ctx, l.Path)
		if err != nil {
			return fmt.Errorf("verifying backing layer %s: %w", l.Path, err)
		}
		if l.Digest == "" || digest != l.Digest {
			return api.NewProblem("chain-unsafe", "backing layer %s has changed since the plan: it was %s and is %s", l.Path, l.Digest, digest).
				WithHint("ask for the migration again: the plan will be another")
		}
	}
	return nil
}

// fill copies the frozen layers into a fresh volume.
func (s *Service) fill(ctx context.Context, e *entry, d api.IncomingDisk) error {
	if err := s.verifyBacking(ctx, d.Seed.Chain); err != nil {
		return err
	}
	if len(d.Seed.Chain) == 0 {
		return fmt.Errorf("a seed names no layers")
	}
	var owned volume.Owned
	for _, v := range e.snapshot().Volumes {
		if v.Target == d.Target && v.Owned != nil {
			owned = *v.Owned
		}
	}
	host, err := s.Host.Host(ctx)
	if err != nil {
		return err
	}
	top := d.Seed.Chain[0]
	src, err := volume.Walk(top.Path, volume.Format(top.Format), folders(host.Pools))
	if err != nil {
		return fmt.Errorf("reading the layers to fill from: %w", err)
	}
	err = volume.Fill(ctx, src, owned, volume.Format(d.Place.Format), s.Runner, func(done, total int64) {
		e.setProgress(api.Progress{BytesDone: done, BytesTotal: total,
			Disks: []api.PartProgress{{Target: d.Target, BytesDone: done, BytesTotal: total}}})
	})
	if err != nil {
		return fmt.Errorf("filling volume %s from %s: %w", owned.Path, top.Path, err)
	}
	return s.update(e, func(r *reservation) {
		r.Places = slices.Clone(r.Places)
		for i := range r.Places {
			if r.Places[i].Target == d.Target {
				r.Places[i].Filled = true
			}
		}
	})
}
