package templates

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
)

// Health gives, for each instance that stands on a template whose copy is not
// as it was published, the reasons in plain words. It reads no disk: what the
// registry noticed last, and what was last found in the chains, is what counts.
func (s *Service) Health() map[api.Ref][]string {
	var all []api.Template
	for _, t := range s.Registry.List() {
		all = append(all, s.shown(t))
	}
	return health(all)
}

// health goes by the refs of both witnesses: an instance that only one of them
// connects with a copy stands on it, for all that is known.
func health(all []api.Template) map[api.Ref][]string {
	out := map[api.Ref][]string{}
	for _, t := range all {
		for _, r := range slices.SortedFunc(slices.Values(t.Refs), func(a, b api.TemplateRef) int { return cmp.Compare(a.Disk, b.Disk) }) {
			c := copyOn(t, r.Pool)
			if c.State == api.CopyReady || r.Instance == "" {
				continue
			}
			why := fmt.Sprintf("disk %q stands on template %q, whose copy on pool %q %s", r.Disk, t.ID, r.Pool, plight(c))
			ref := api.Ref{Project: r.Project, Name: r.Instance}
			out[ref] = append(out[ref], why)
		}
	}
	return out
}

// copyOn gives a template's copy on a pool. One that is not there at all is
// missing as well.
func copyOn(t api.Template, pool string) api.TemplateCopy {
	for _, c := range t.Copies {
		if c.Pool == pool {
			return c
		}
	}
	return api.TemplateCopy{Pool: pool, State: api.CopyMissing}
}
