package templates

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/digest"
)

// ByPath gives the template that a file is a copy of, removed ones too.
func (s *Service) ByPath(path string) (id string, direct, ok bool) {
	t, _, ok := s.Registry.ByPath(path)
	return t.ID, t.DirectDownload, ok
}

// Direct gives the direct-download flag of a template, also after its removal.
func (s *Service) Direct(id string) (direct, known bool) { return s.Registry.DirectDownload(id) }

// HasRef tells whether the volume's ref to the template is there. One to the
// same bytes under another id is as good: the two have one file.
func (s *Service) HasRef(id, volume string) bool {
	ref, ok := s.Registry.RefByVolume(volume)
	if !ok || ref.Template == id {
		return ok
	}
	has, _ := s.Registry.Lookup(ref.Template)
	wanted, _ := s.Registry.Lookup(id)
	return has.Digest != "" && has.Digest == wanted.Digest
}

// Record gives a template as it is registered here.
func (s *Service) Record(id string) (api.Template, bool) {
	t, ok := s.Registry.Lookup(id)
	return show(t), ok
}

// Ready gives a template that is ready on this host, and its copy's file.
func (s *Service) Ready(_ context.Context, id string) (api.Template, string, error) {
	t, c, err := s.Registry.Usable(id)
	switch {
	case errors.Is(err, template.ErrNotFound) && t.Removed():
		return api.Template{}, "", api.NewProblem("not-found", "template %q was removed", id).WithField("template", "removed")
	case errors.Is(err, template.ErrNotFound):
		return api.Template{}, "", api.NewProblem("not-found", "%w", err).WithField("template", "not registered on this host")
	case err != nil:
		all := show(t).Copies
		best := api.TemplateCopy{State: api.CopyPending}
		for i, c := range all {
			// One that is on its way says more than one that is given up.
			if i == 0 || best.State == api.CopyFailed && c.State != api.CopyFailed {
				best = c
			}
		}
		return api.Template{}, "", api.NewProblem("precondition", "template %q %s", id, outlook(best)).
			WithHint("wait for it, or `wherry template retry %s`", id)
	}
	return show(t), c.Path, nil
}

// ReadyByDigest gives the file of a ready copy with these bytes, which still
// looks as it did.
func (s *Service) ReadyByDigest(digest string) (path, id string, ok bool) {
	t, c, ok := s.Registry.ByDigest(digest, "")
	return c.Path, t.ID, ok
}

// PutRef notes that a volume stands on the copy of a template whose file is
// base: updated where there is a ref, else inserted. The volume may lie in
// another pool than the copy, and it is the copy that the ref keeps.
func (s *Service) PutRef(ctx context.Context, id, base string, r api.TemplateRef) error {
	defer s.changed()
	t, _ := s.Registry.Lookup(id)
	for _, c := range t.Copies {
		if c.Path == base {
			r.Pool = c.Pool
		}
	}
	if _, recorded := s.Registry.RefByVolume(r.Volume); r.Pool == "" && !recorded {
		// It was deleted, or lost, since somebody chose it.
		return api.NewProblem("not-ready", "template %q has no copy at %q any more", id, base)
	}
	return s.Registry.UpdateRef(ctx, r.Volume, id, template.Ref{Template: id, Project: r.Project, Instance: r.Instance,
		Disk: r.Disk, Volume: r.Volume, Pool: r.Pool})
}

// DropRef removes the ref of a volume that is gone.
func (s *Service) DropRef(ctx context.Context, volume string) error {
	defer s.changed()
	return s.Registry.RemoveRef(ctx, volume)
}

// Stage brings a template to this host, from the peer that needs it here, from
// another one, or from its URL, and gives the path of its copy.
func (s *Service) Stage(ctx context.Context, l api.StageLayer, report func(done, total int64)) (string, error) {
	if path, _, ok := s.ReadyByDigest(l.Layer.Digest); ok {
		return path, nil
	}
	spec := template.Spec{ID: l.Template, Checksum: l.Layer.Digest, Digest: l.Layer.Digest, Format: l.Layer.Format, Pool: l.Pool, SyncFrom: l.SyncFrom}
	if l.Record != nil {
		spec.URL, spec.DirectDownload = l.Record.URL, l.Record.DirectDownload
		if digest.Check(l.Record.Checksum) == nil {
			// It is over what the URL serves, which may be packed.
			spec.Checksum = l.Record.Checksum
		}
	}
	// Here the same bytes may be known by another checksum.
	if t, ok := s.Registry.Lookup(l.Template); ok && t.Digest == l.Layer.Digest {
		spec.Checksum = t.Checksum
	}
	t, err := s.Registry.Import(ctx, spec, report)
	if err != nil {
		return "", problem(err)
	}
	c, ok := t.Ready(l.Pool)
	if !ok {
		return "", fmt.Errorf("template %q arrived but is not ready", l.Template)
	}
	return c.Path, nil
}

// Counts gives the number of copies in each state, for metrics.
func (s *Service) Counts() map[string]int {
	out := map[string]int{}
	for _, t := range s.Registry.List() {
		if t.Removed() {
			continue
		}
		for _, c := range t.Copies {
			out[c.State]++
		}
	}
	return out
}
