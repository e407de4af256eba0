package templates

import (
	"context"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

// Bring makes every copy of a template ready that is not, within another
// operation: a download or a copy from a peer. It blocks until they are, until
// it is clear that they will not be, or until ctx ends; report may be nil.
func (s *Service) Bring(ctx context.Context, id string, report func(done, total int64)) error {
	return problem(s.Registry.Fetch(ctx, id, report))
}

// Collected gives a template whose copy was deleted because nothing stood on
// it, if that is so. It is to be brought again before anything can.
func (s *Service) Collected(id string) (api.Template, bool) {
	t, ok := s.Registry.Lookup(id)
	if _, ready := t.Ready(""); !ok || ready || t.Removed() {
		return api.Template{}, false
	}
	return show(t), slices.ContainsFunc(t.Copies, func(c template.Copy) bool { return c.Collected })
}

// RefOf gives the template that a volume is recorded to stand on.
func (s *Service) RefOf(volume string) (id string, ok bool) {
	ref, ok := s.Registry.RefByVolume(volume)
	return ref.Template, ok
}
