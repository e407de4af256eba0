package rebuild

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

// Facts are all that a rebuild is decided on.
type Facts struct {
	Domain    hypervisor.Domain
	Saved     bool     // libvirt keeps memory for its next start
	Snapshots []string // libvirt's
	// Checkpoints are libvirt's, for incremental backups.
	Checkpoints []string
	XML         string // the definition of the next start
	Parsed      domainxml.Domain
	Record      *api.Record // nil where Wherry keeps none
	Pools       []api.Pool
	Root        Root
	Template    Template // of the request, or the original; no ID where there is none
}

// Root is what was found of the root disk.
type Root struct {
	Chain    volume.Chain // as far as it can be read
	ChainErr error
	Link     bool   // the path is a symbolic link
	Free     int64  // bytes that its file system has left for us
	FreeErr  error  // Free is not known
	FileErr  error  // why no file of the new disk's can be made beside it
	Ref      string // the template that the volume is recorded to stand on
	Base     string // the template that its chain leads to
}

// Template is what was found of a template.
type Template struct {
	ID    string
	Known bool
	Info  api.Template
	// Path is the file of a copy that is ready; "" where none is, and NotReady
	// says why.
	Path      string
	NotReady  string
	Allocated int64 // bytes that the copy takes
}

// gather looks at the instance, under its lock or without.
func (s *Service) gather(ctx context.Context, ref api.Ref, r api.RebuildRequest) (Facts, error) {
	var f Facts
	var err error
	if f.Domain, err = s.find(ctx, ref); err != nil {
		return f, err
	}
	if f.XML, err = s.Hypervisor.XML(ctx, ref.Name, true); err != nil {
		return f, inspect.Problem(ref, err)
	}
	if f.Parsed, err = domainxml.Parse(f.XML); err != nil {
		return f, api.NewProblem("libvirt-failed", "reading the definition of %q: %w", ref, err)
	}
	if f.Saved, err = s.Hypervisor.Saved(ctx, ref.Name); err != nil {
		return f, inspect.Problem(ref, err)
	}
	if f.Domain.Snapshots > 0 {
		if f.Snapshots, err = s.Hypervisor.Snapshots(ctx, ref.Name); err != nil {
			return f, inspect.Problem(ref, err)
		}
	}
	if f.Checkpoints, err = s.Hypervisor.Checkpoints(ctx, ref.Name); err != nil {
		return f, inspect.Problem(ref, err)
	}
	rec, err := s.Records.Of(ref, f.Domain.UUID)
	switch {
	case err == nil:
		f.Record = &rec
	case !errors.Is(err, record.ErrNotFound):
		return f, api.NewProblem("internal", "%w", err)
	}
	host, err := s.Host.Host(ctx)
	if err != nil {
		return f, err
	}
	f.Pools = host.Pools
	if x, err := RootOf(f.Parsed); err == nil {
		f.Root = s.root(x, f.Pools, r)
		f.Template = s.template(ctx, wanted(r.Source, f, x))
	}
	return f, nil
}

// find gives the domain of an instance, if it belongs to the project.
func (s *Service) find(ctx context.Context, ref api.Ref) (hypervisor.Domain, error) {
	d, err := s.Hypervisor.Domain(ctx, ref.Name)
	if err != nil {
		return d, inspect.Problem(ref, err)
	}
	return d, inspect.Belongs(s.Records, ref, d.UUID)
}

func (s *Service) root(x domainxml.Disk, pools []api.Pool, r api.RebuildRequest) Root {
	var out Root
	if x.Type != "file" || !filepath.IsAbs(x.Source) {
		return out
	}
	roots := []string{filepath.Dir(x.Source)}
	for _, p := range pools {
		if filepath.IsAbs(p.Path) && p.Path != "/dev" {
			roots = append(roots, p.Path)
		}
	}
	// A disk that is lost or damaged is what a rebuild is good for: the chain
	// is taken as far as it goes.
	out.Chain, out.ChainErr = volume.Walk(x.Source, formatOf(x), roots)
	if info, err := os.Lstat(x.Source); err == nil {
		out.Link = info.Mode()&os.ModeSymlink != 0
	}
	out.Free, out.FreeErr = s.Free(filepath.Dir(x.Source))
	if poolOf(x.Source, pools) != "" {
		size := int64(0)
		if formatOf(x) == volume.FormatRaw && r.Source.Type != api.SourceEmpty {
			size = r.DiskSize // a raw disk is a file of its size
		}
		out.FileErr = s.Room(filepath.Dir(x.Source), size)
	}
	if id, ok := s.Templates.RefOf(x.Source); ok {
		out.Ref = id
	}
	for i := 1; i < len(out.Chain); i++ {
		if id, _, ok := s.Bases.ByPath(out.Chain[i].Path); ok {
			out.Base = id
		}
	}
	return out
}

// formatOf: libvirt reads a disk without a driver type as raw, never by its
// content.
func formatOf(x domainxml.Disk) volume.Format {
	return volume.Format(cmp.Or(x.Format, string(volume.FormatRaw)))
}

// wanted names the template that the new disk is made from; "" for none, or
// where the original is not known.
func wanted(source api.RebuildSource, f Facts, root domainxml.Disk) string {
	switch source.Type {
	case api.SourceTemplate:
		return source.Template
	case api.SourceOriginal:
		return original(f, root.Target)
	}
	return ""
}

// original is the template that the disk was made from: by the record, which
// is kept with the disk; by the ref of its volume; by what its chain leads to.
func original(f Facts, target string) string {
	id := ""
	if f.Record != nil {
		for _, d := range f.Record.Disks {
			if d.Target == target {
				id = d.Template
			}
		}
	}
	return cmp.Or(id, f.Root.Ref, f.Root.Base)
}

func (s *Service) template(ctx context.Context, id string) Template {
	t := Template{ID: id}
	if id == "" {
		return t
	}
	t.Info, t.Known = s.Templates.Record(id)
	if info, path, err := s.Templates.Ready(ctx, id); err != nil {
		t.NotReady = api.AsProblem(err).Detail
	} else {
		t.Info, t.Path, t.Known = info, path, true
		t.Allocated = info.Size
		if l, err := volume.Inspect(path, volume.Format(info.Format)); err == nil {
			t.Allocated = l.Allocated
		}
	}
	return t
}
