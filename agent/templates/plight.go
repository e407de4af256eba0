package templates

import (
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template/fault"
)

// plight says what has become of a copy that is not ready, for a sentence that
// has the copy before it: "is lost: the file is gone". Only a copy that was
// there once has a path.
func plight(c api.TemplateCopy) string {
	text, again := "", ""
	if c.Path != "" {
		again = " again"
	}
	switch c.State {
	case api.CopyReady:
		return "is ready"
	case api.CopyMissing:
		text = "is lost"
	case api.CopyFailed:
		switch {
		case c.Code == fault.Changed:
			text = "has changed"
		case again != "":
			text = "is lost, and could not be brought again"
		default:
			text = "could not be brought"
		}
	case api.CopyPending:
		text = "is not brought" + again + " yet"
	case api.CopyVerifying:
		if text = "is being verified"; c.Message != "" {
			text = "is in doubt"
		}
	default: // it comes
		if text = "is being brought" + again; c.Origin != "" {
			text += " from " + c.Origin
		}
	}
	if c.Message != "" {
		text += ": " + c.Message
	}
	return text
}

// outlook is plight with what programs call it, and with what happens next.
func outlook(c api.TemplateCopy) string {
	next := ""
	switch {
	case c.RetryAt != nil:
		next = "; the next attempt is at " + c.RetryAt.UTC().Format(time.RFC3339)
	case c.State == api.CopyFailed, c.State == api.CopyMissing:
		next = "; it is not tried again by itself"
	}
	return fmt.Sprintf("%s (state %s)%s", plight(c), c.State, next)
}

// Lost looks at the copy whose file lies, or is to lie, at a path, and says of
// one that nothing may stand on now which it is, what has become of it, and
// when it is tried again: `template "rocky9", whose copy on pool "default" is
// lost: ...`. It reads nothing, and what it finds to be lost is brought again
// from then on. false: the copy is as it was published, or there is none.
func (s *Service) Lost(path string) (why string, lost bool) {
	t, c, known := s.Registry.LookAt(path)
	if !known || c.State == api.CopyReady {
		return "", false
	}
	return fmt.Sprintf("template %q, whose copy on pool %q %s", t.ID, c.Pool, outlook(copyOn(show(t), c.Pool))), true
}
