package templates

import (
	"context"
	"os"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
)

// Open gives a ready copy's content, by a template's id, or by its digest
// ("sha256:..."): then any copy with these bytes will do. The registry looks
// at the copy as it opens it; one that changed underneath is not sent, and is
// repaired. The caller closes the file.
func (s *Service) Open(_ context.Context, id string) (*os.File, api.Template, error) {
	open := s.Registry.OpenContent
	if strings.HasPrefix(id, "sha256:") {
		open = s.Registry.OpenDigest
	}
	f, t, err := open(id)
	return f, show(t), problem(err)
}
