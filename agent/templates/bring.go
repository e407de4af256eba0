package templates

import "context"

// Bring makes every copy of a template ready that is not, within another
// operation: a download or a copy from a peer. It blocks until they are, until
// it is clear that they will not be, or until ctx ends; report may be nil.
func (s *Service) Bring(ctx context.Context, id string, report func(done, total int64)) error {
	return problem(s.Registry.Fetch(ctx, id, report))
}

// RefOf gives the template that a volume is recorded to stand on.
func (s *Service) RefOf(volume string) (id string, ok bool) {
	ref, ok := s.Registry.RefByVolume(volume)
	return ref.Template, ok
}
