package templates

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
)

func TestHealth(t *testing.T) {
	vm1, vm2 := api.Ref{Project: "default", Name: "vm1"}, api.Ref{Project: "blue", Name: "vm2"}
	ref := func(known string, r api.Ref, disk, pool string) api.TemplateRef {
		return api.TemplateRef{Known: known, Project: r.Project, Instance: r.Name, Disk: disk, Volume: "/images/" + r.Name + disk, Pool: pool}
	}
	copies := func(state, message string) []api.TemplateCopy {
		return []api.TemplateCopy{{Pool: "default", State: state, Message: message}, {Pool: "fast", State: "ready"}}
	}
	const is = `disk "vda" stands on template "rocky9", whose copy on pool "default" is `
	for _, row := range []struct {
		name   string
		copies []api.TemplateCopy
		refs   []api.TemplateRef
		want   map[api.Ref][]string
	}{
		{"sound", copies("ready", ""), []api.TemplateRef{ref("both", vm1, "vda", "default")}, nil},
		{"nobody stands on it", copies("missing", ""), nil, nil},
		{"missing", copies("missing", "the file is gone"), []api.TemplateRef{ref("both", vm1, "vda", "default"), ref("both", vm2, "vda", "default")},
			map[api.Ref][]string{vm1: {is + "missing: the file is gone"}, vm2: {is + "missing: the file is gone"}}},
		{"on the way back", copies("syncing", ""), []api.TemplateRef{ref("both", vm1, "vdb", "default"), ref("both", vm1, "vda", "default")},
			map[api.Ref][]string{vm1: {is + "syncing", `disk "vdb" stands on template "rocky9", whose copy on pool "default" is syncing`}}},
		{"on another copy", copies("failed", "no"), []api.TemplateRef{ref("both", vm1, "vda", "fast")}, nil},
		{"on a copy that is no more", nil, []api.TemplateRef{ref("recorded", vm1, "vda", "default")}, map[api.Ref][]string{vm1: {is + "missing"}}},
		{"only the chain tells", copies("failed", "changed"), []api.TemplateRef{ref("found", vm1, "vda", "default"), ref("found", vm2, "vda", "fast")},
			map[api.Ref][]string{vm1: {is + "failed: changed"}}},
		{"a volume of no instance", copies("failed", "changed"), []api.TemplateRef{ref("found", api.Ref{}, "", "default")}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.want == nil {
				row.want = map[api.Ref][]string{}
			}
			if d := cmp.Diff(row.want, health([]api.Template{{ID: "rocky9", Copies: row.copies, Refs: row.refs}})); d != "" {
				t.Error(d)
			}
		})
	}
}
