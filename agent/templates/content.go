package templates

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

// Open gives a ready copy's content, by a template's id, or by its digest
// ("sha256:..."): then any copy with these bytes will do. The registry looks
// at the copy as it opens it; one that changed underneath is not sent, and is
// repaired. The caller closes the file.
func (s *Service) Open(_ context.Context, id string) (*os.File, api.Template, error) {
	if !strings.HasPrefix(id, "sha256:") {
		f, t, err := s.Registry.OpenContent(id)
		return f, show(t), problem(err)
	}
	err := error(api.NewProblem("not-found", "no template here has the digest %s", id))
	for _, t := range s.Registry.List() {
		if t.Digest != id {
			continue
		}
		f, t, openErr := s.Registry.OpenContent(t.ID)
		if openErr == nil {
			return f, show(t), nil
		}
		// A tombstone with these bytes hides no copy that is being repaired.
		if !errors.Is(openErr, template.ErrNotFound) {
			err = problem(openErr)
		}
	}
	return nil, api.Template{}, err
}
