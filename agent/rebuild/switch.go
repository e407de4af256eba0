package rebuild

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// change has the definition name the new volume, and writes the record.
func (b *rebuild) change(ctx context.Context) error {
	text, names, err := b.definition(ctx, true)
	if err != nil {
		return err
	}
	if names == NamesOther || names == NamesNew && !b.j.Switching {
		return api.NewProblem("conflict", "somebody has given %q another root disk meanwhile", b.ref).WithDisk(b.j.Plan.Disk)
	}
	if names == NamesOld {
		if err := b.idle(ctx); err != nil {
			return err
		}
		if err := b.define(ctx, text); err != nil {
			return err
		}
	}
	return b.keep(ctx)
}

// idle refuses what somebody has done since it was looked at, whom our lock
// does not hold up.
func (b *rebuild) idle(ctx context.Context) error {
	d, err := b.find(ctx, b.ref)
	switch {
	case err != nil:
		return err
	case d.UUID != b.j.UUID:
		return api.NewProblem("conflict", "%q is another instance now, with UUID %s", b.ref, d.UUID)
	case runs(d):
		return api.NewProblem("conflict", "somebody has started %q meanwhile", b.ref)
	case d.Snapshots > 0:
		return api.NewProblem("conflict", "somebody has made a snapshot of %q meanwhile", b.ref)
	}
	switch saved, err := b.Hypervisor.Saved(ctx, b.ref.Name); {
	case err != nil:
		return inspect.Problem(b.ref, err)
	case saved:
		return api.NewProblem("conflict", "somebody has saved the memory of %q meanwhile, which would go on with the old disk", b.ref)
	}
	return nil
}

// define replaces the definition. The journal says so first: whatever answer
// libvirt gives, or none, it may have done it.
func (b *rebuild) define(ctx context.Context, text string) error {
	p := b.j.Plan
	var backing []domainxml.BackingLayer
	if p.Spec.Backing != "" {
		backing = append(backing, domainxml.BackingLayer{Path: p.Spec.Backing, Format: string(p.Spec.BackingFormat), Type: "file"})
	}
	next, err := domainxml.SetDisk(text, p.Disk, b.j.Path, p.New.Format, backing...)
	if err != nil {
		return api.NewProblem("internal", "%w", err).WithDisk(p.Disk)
	}
	if !b.j.Switching {
		rec, err := b.Records.Of(b.ref, b.j.UUID)
		switch {
		case err == nil:
			b.j.Record = &rec
		case !errors.Is(err, record.ErrNotFound):
			return api.NewProblem("internal", "%w", err)
		}
		b.j.Before, b.j.Switching = text, true
		if err := b.save(); err != nil {
			return err
		}
	}
	if err := b.Definer.Define(ctx, next); err != nil {
		return api.NewProblem("libvirt-failed", "%w", err).WithDisk(p.Disk)
	}
	switch _, names, err := b.definition(ctx, true); {
	case err != nil:
		return err
	case names != NamesNew:
		return api.NewProblem("libvirt-failed", "libvirt took the definition, and does not name %s in it", b.j.Path).WithDisk(p.Disk)
	}
	return nil
}

// definition gives the instance's XML and which volume it names as the root
// disk.
func (b *rebuild) definition(ctx context.Context, inactive bool) (string, Names, error) {
	text, err := b.Hypervisor.XML(ctx, b.ref.Name, inactive)
	if err != nil {
		return "", NamesOther, inspect.Problem(b.ref, err)
	}
	d, err := domainxml.Parse(text)
	if err != nil {
		return "", NamesOther, api.NewProblem("libvirt-failed", "reading the definition of %q: %w", b.ref, err)
	}
	x, _ := d.Disk(b.j.Plan.Disk)
	switch {
	case b.j.Path != "" && x.Source == b.j.Path:
		return text, NamesNew, nil
	case x.Source == b.j.Plan.Old.Path:
		return text, NamesOld, nil
	}
	return text, NamesOther, nil
}

// keep writes the record of the instance with its new disk. One that had none
// gets one: nothing else would say that the volume is ours.
func (b *rebuild) keep(ctx context.Context) error {
	rec, err := b.Records.Of(b.ref, b.j.UUID)
	switch {
	case errors.Is(err, record.ErrNotFound):
		rec = api.Record{Project: cmp.Or(b.ref.Project, api.DefaultProject), Name: b.ref.Name, UUID: b.j.UUID, PowerState: "stopped"}
	case err != nil:
		return api.NewProblem("internal", "%w", err)
	}
	if b.records(rec, b.j.Path) {
		return nil // before a crash; it may have been started since
	}
	text, err := b.Hypervisor.XML(ctx, b.ref.Name, true)
	if err != nil {
		return inspect.Problem(b.ref, err)
	}
	d, err := domainxml.Parse(text)
	if err != nil {
		return api.NewProblem("libvirt-failed", "reading the definition of %q: %w", b.ref, err)
	}
	rec.Disks = b.disks(d, rec.Disks)
	rec.DomainXML, rec.Template, rec.UpdatedAt = text, b.j.Plan.New.Template, b.Now().UTC()
	if err := b.Keeper.Write(rec); err != nil {
		return api.NewProblem("internal", "%w", err)
	}
	return nil
}

// records tells whether the record has a volume as the root disk.
func (b *rebuild) records(r api.Record, path string) bool {
	return slices.ContainsFunc(r.Disks, func(d api.RecordDisk) bool { return d.Target == b.j.Plan.Disk && d.Path == path })
}

// disks are those of the record: the root disk as it is now, the others as they
// were known.
func (b *rebuild) disks(d domainxml.Domain, known []api.RecordDisk) []api.RecordDisk {
	p, out := b.j.Plan, []api.RecordDisk{}
	for _, x := range d.Disks {
		disk := api.RecordDisk{Target: x.Target, Path: x.Source, Format: x.Format}
		if i := slices.IndexFunc(known, func(k api.RecordDisk) bool { return k.Target == x.Target }); i >= 0 {
			disk = known[i]
		}
		if x.Target == p.Disk {
			disk = api.RecordDisk{Target: x.Target, Pool: p.New.Pool, Volume: filepath.Base(b.j.Path), Path: b.j.Path, Format: p.New.Format,
				Template: p.New.Template, DirectDownload: p.New.DirectDownload, Owned: true}
		}
		out = append(out, disk)
	}
	return out
}

// start starts the instance on its new disk. Libvirt's failure may hide that it
// runs, and then it has begun to write there.
func (b *rebuild) start(ctx context.Context) error {
	err := b.Power.Up(ctx, b.ref)
	if err == nil {
		return nil
	}
	if d, look := b.find(ctx, b.ref); look == nil && runs(d) {
		b.warnings = append(b.warnings, "the instance runs, although starting it failed: "+err.Error())
		return nil
	}
	return err
}
