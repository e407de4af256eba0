package daemon

import (
	"github.com/wherry-kvm/wherry/agent/metrics"
	"github.com/wherry-kvm/wherry/agent/templates"
)

// templateState gives the metrics what the service knows of its templates,
// from memory.
func templateState(s *templates.Service) metrics.TemplateState {
	var out metrics.TemplateState
	for _, t := range s.Registry.List() {
		refs := map[string]int{}
		for _, r := range t.Refs {
			refs[r.Pool]++
		}
		for _, c := range t.Copies {
			m := metrics.TemplateCopy{Template: t.ID, Pool: c.Pool, State: c.State, Removed: t.Removed(), Refs: refs[c.Pool]}
			if c.FailedSince != nil {
				m.FailedSince = *c.FailedSince
			}
			out.Copies = append(out.Copies, m)
		}
	}
	return out
}
