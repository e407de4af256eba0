package templates

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

// Health gives, for each instance that stands on a template whose copy is not
// as it was published, the reasons in plain words. It reads no disk: what the
// registry noticed last is what counts.
func (s *Service) Health() map[api.Ref][]string {
	var found []template.Use
	if s.Refs != nil {
		found = s.Refs.Uses()
	}
	return health(s.Registry.List(), found)
}

// standing says that a disk of an instance stands on a copy.
type standing struct {
	instance             api.Ref
	disk, template, pool string
}

// health joins what the store knows with what was last found in real chains:
// an instance that only one of the two connects with a copy stands on it, for
// all that is known.
func health(all []template.Template, found []template.Use) map[api.Ref][]string {
	reasons := map[standing]string{}
	for _, t := range all {
		for _, r := range t.Refs {
			if c := copyOn(t, r.Pool); c.State != template.StateReady {
				reasons[standing{api.Ref{Project: r.Project, Name: r.Instance}, r.Disk, t.ID, r.Pool}] = ill(t, c)
			}
		}
		for _, c := range t.Copies {
			if c.State == template.StateReady || c.Path == "" {
				continue
			}
			for _, u := range found {
				if u.Instance != "" && u.On(template.File{Path: c.Path}) {
					reasons[standing{api.Ref{Project: u.Project, Name: u.Instance}, u.Disk, t.ID, c.Pool}] = ill(t, c)
				}
			}
		}
	}
	out := map[api.Ref][]string{}
	for _, on := range slices.SortedFunc(maps.Keys(reasons), func(a, b standing) int {
		return cmp.Or(cmp.Compare(a.disk, b.disk), cmp.Compare(a.template, b.template), cmp.Compare(a.pool, b.pool))
	}) {
		out[on.instance] = append(out[on.instance], fmt.Sprintf("disk %q stands on %s", on.disk, reasons[on]))
	}
	return out
}

// copyOn gives a template's copy on a pool. One that is not there at all is
// missing as well.
func copyOn(t template.Template, pool string) template.Copy {
	for _, c := range t.Copies {
		if c.Pool == pool {
			return c
		}
	}
	return template.Copy{Pool: pool, State: template.StateMissing}
}

func ill(t template.Template, c template.Copy) string {
	s := fmt.Sprintf("template %q, whose copy on pool %q is %s", t.ID, c.Pool, c.State)
	if c.Message != "" {
		s += ": " + c.Message
	}
	return s
}
