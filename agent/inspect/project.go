package inspect

import (
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

// Belongs says whether the domain of that UUID is the instance that was asked
// for. Libvirt knows no projects, so the records tell: a domain without one
// belongs to the default project. Acting on another project's instance of the
// same name must not happen by a forgotten parameter.
func Belongs(records record.Dir, ref api.Ref, uuid string) error {
	asked := ref.Project
	if asked == "" {
		asked = api.DefaultProject
	}
	if r, err := records.Read(api.Ref{Project: asked, Name: ref.Name}); err == nil && r.UUID == uuid {
		return nil
	}
	owner := api.DefaultProject
	all, _ := records.List() // a damaged record hides no other
	for _, r := range all {
		if r.UUID == uuid {
			owner = r.Project
		}
	}
	if owner == asked {
		return nil
	}
	return api.NewProblem("not-found", "no instance %q in project %q: the one on this host belongs to project %q", ref.Name, asked, owner)
}
