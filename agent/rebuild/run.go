package rebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
)

// rebuild is one of them at work.
type rebuild struct {
	*Service
	op       *operation.Op
	ref      api.Ref
	r        api.RebuildRequest
	j        journal
	warnings []string
}

// run does it all. Everything before the switch can be cancelled.
func (b *rebuild) run(ctx context.Context) (any, error) {
	if err := b.op.Step(ctx, "check", b.check); err != nil {
		return nil, err
	}
	if b.j.Plan.Fetch {
		if err := b.op.Step(ctx, "fetch", b.fetch); err != nil {
			return nil, err
		}
	}
	// Before anything is done, so that a crash finds what was to be done.
	if err := b.save(); err != nil {
		return nil, err
	}
	b.op.Undo("keep the old disk", b.restore)
	if b.j.Ran {
		if err := b.stop(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.op.Step(ctx, "make", b.make); err != nil {
		return nil, err
	}
	b.op.NotCancellable()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return b.forward(ctx)
}

// forward is all from the switch on; a recovery comes here too.
func (b *rebuild) forward(ctx context.Context) (any, error) {
	if !b.j.Done {
		if err := b.op.Step(ctx, "switch", b.change); err != nil {
			return nil, err
		}
		if b.j.Ran || b.r.Start {
			if err := b.op.Step(ctx, "start", b.start); err != nil {
				return nil, err
			}
		}
		// The guest may have begun to write to the new disk: it stays, whatever
		// fails from here on.
		b.op.DropUndo()
		b.j.Done = true
		if err := b.save(); err != nil {
			return nil, err
		}
	}
	removed := false
	err := b.op.Step(ctx, "remove", func(ctx context.Context) error {
		var err error
		removed, err = b.retire(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.result(removed), nil
}

func (b *rebuild) result(removed bool) api.RebuildResult {
	out := api.RebuildResult{Disk: b.j.Plan.Disk, Old: b.j.Plan.Old, New: b.j.Plan.New, Removed: removed,
		Started: b.j.Ran || b.r.Start, Warnings: b.warnings}
	if b.j.Stopped != nil {
		out.Rung = b.j.Stopped.Rung
	}
	return out
}

func (b *rebuild) save() error { return b.op.Save(Kind, b.j) }

// check looks again, now that nobody else may touch the instance.
func (b *rebuild) check(ctx context.Context) error {
	f, err := b.gather(ctx, b.ref, b.r)
	if err != nil {
		return err
	}
	p, reasons := Decide(f, b.r)
	if err := refusal(b.ref, reasons); err != nil {
		return err
	}
	b.j.UUID, b.j.Plan, b.j.Ran = f.Domain.UUID, p, p.Stop
	b.j.Old = nil
	if !p.Old.Owned {
		return nil
	}
	// Its identity is taken while the definition says that it is the one.
	own, err := b.Volumes.Identify(p.Old.Path)
	switch {
	case err == nil:
		b.j.Old = &own
	case !errors.Is(err, fs.ErrNotExist):
		return api.NewProblem("internal", "%w", err).WithDisk(p.Disk)
	}
	return nil
}

// fetch brings the template, and decides again: only now is it known how large
// it is.
func (b *rebuild) fetch(ctx context.Context) error {
	err := b.Templates.Bring(ctx, b.j.Plan.New.Template, b.progress)
	if err != nil {
		return err
	}
	if err := b.check(ctx); err != nil {
		return err
	}
	if b.j.Plan.Fetch {
		return api.NewProblem("template-failed", "template %q was fetched and is not ready", b.j.Plan.New.Template)
	}
	return nil
}

func (b *rebuild) progress(done, total int64) {
	p := api.Progress{BytesDone: done, BytesTotal: max(total, 0)}
	if total > 0 {
		p.Percent = 100 * float64(done) / float64(total)
	}
	b.op.Progress(p)
}

// stop brings the instance down: its guest is asked, and has its time, because
// its other disks stay.
func (b *rebuild) stop(ctx context.Context) error {
	b.j.Stopping = true
	if err := b.save(); err != nil {
		return err
	}
	result, err := b.Power.Down(ctx, b.op, b.j.UUID, api.StopRequest{Timeout: b.r.Timeout, OnTimeout: "force"})
	if err != nil {
		return err
	}
	b.j.Stopped = &result
	b.warnings = append(b.warnings, result.Warnings...)
	return b.save()
}

// make makes the new volume beside the old one.
func (b *rebuild) make(ctx context.Context) error {
	p := &b.j.Plan
	p.Spec.Path = b.newPath()
	b.j.Path = p.Spec.Path
	if err := b.save(); err != nil {
		return err
	}
	own, err := b.Volumes.Reserve(b.j.Path)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			b.j.Path = "" // it is somebody's
			err = errors.Join(err, b.save())
		}
		return b.problem("conflict", err)
	}
	b.j.New, p.New.Path = &own, own.Path
	if err := b.save(); err != nil {
		return err
	}
	if p.Base != "" {
		if err := b.base(ctx); err != nil {
			return err
		}
	}
	if err := b.Volumes.Format(ctx, own, p.Spec); err != nil {
		return b.problem("internal", err)
	}
	if p.Base != "" && p.New.Clone == api.ModeFull {
		if err := b.Volumes.Fill(ctx, p.Base, p.BaseFormat, own, p.Spec, b.progress); err != nil {
			return b.problem("internal", err)
		}
	}
	// Only now that the instance is down: libvirt lends the file to QEMU while it
	// runs, and takes it back then.
	if err := b.Volumes.Resemble(own, p.Old.Path); err != nil {
		return b.problem("internal", err)
	}
	if err := b.Volumes.Finish(own, p.Spec); err != nil {
		return b.problem("internal", err)
	}
	return nil
}

// newPath is beside the old volume.
func (b *rebuild) newPath() string {
	return filepath.Join(filepath.Dir(b.j.Plan.Old.Path), VolumeName(b.ref, b.op.ID(), b.j.Plan.New.Format))
}

// base makes sure of the template's copy: its ref before the look at the bytes,
// so that one that is removed from now on stays.
func (b *rebuild) base(ctx context.Context) error {
	p := b.j.Plan
	if p.New.Clone == api.ModeLinked {
		ref := api.TemplateRef{Project: cmp.Or(b.ref.Project, api.DefaultProject), Instance: b.ref.Name, Disk: p.Disk, Volume: b.j.Path}
		if err := b.Templates.PutRef(ctx, p.New.Template, p.Base, ref); err != nil {
			return b.problem("internal", fmt.Errorf("writing the template ref: %w", err))
		}
	}
	digest, err := b.Digester.Digest(ctx, p.Base)
	if err != nil {
		return b.problem("internal", fmt.Errorf("verifying the copy of template %q: %w", p.New.Template, err))
	}
	if p.Digest != "" && digest != p.Digest {
		return api.NewProblem("chain-unsafe", "the copy %s of template %q is %s and should be %s", p.Base, p.New.Template, digest, p.Digest).WithDisk(p.Disk)
	}
	return nil
}

// problem says which disk it is about, and knows a full file system.
func (b *rebuild) problem(code string, err error) error {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		if p.Disk == "" {
			p.Disk = b.j.Plan.Disk
		}
		return err
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, operation.ErrCancelled), errors.Is(err, operation.ErrShutdown):
		return err
	case errors.Is(err, unix.ENOSPC), b.full():
		return api.NewProblem("no-space", "%w", err).WithDisk(b.j.Plan.Disk).
			WithHint("make room in pool %q, where the new disk is made beside the old one, and ask again", b.j.Plan.Old.Pool)
	}
	return api.NewProblem(code, "%w", err).WithDisk(b.j.Plan.Disk)
}

// full: qemu-img tells of a full file system in words alone, so it is looked at.
func (b *rebuild) full() bool {
	left, err := b.Free(filepath.Dir(b.j.Plan.Old.Path))
	return err == nil && left < emptyImage
}
