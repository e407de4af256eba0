package templates

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

func TestHealth(t *testing.T) {
	vm1, vm2 := api.Ref{Project: "default", Name: "vm1"}, api.Ref{Project: "blue", Name: "vm2"}
	ref := func(r api.Ref, disk, pool string) template.Ref {
		return template.Ref{Template: "rocky9", Project: r.Project, Instance: r.Name, Disk: disk, Volume: "/images/" + r.Name + disk, Pool: pool}
	}
	use := func(r api.Ref, disk string, base string) template.Use {
		return template.Use{Project: r.Project, Instance: r.Name, Disk: disk, Volume: "/images/" + r.Name + disk,
			Layers: []template.File{{Path: "/images/" + r.Name + disk}, {Path: base}}}
	}
	copies := func(state, message string) []template.Copy {
		return []template.Copy{
			{Pool: "default", Path: "/images/base", State: state, Message: message},
			{Pool: "fast", Path: "/fast/base", State: template.StateReady},
		}
	}
	for _, row := range []struct {
		name   string
		copies []template.Copy
		refs   []template.Ref
		found  []template.Use
		want   map[api.Ref][]string
	}{
		{"sound", copies("ready", ""), []template.Ref{ref(vm1, "vda", "default")}, []template.Use{use(vm1, "vda", "/images/base")}, nil},
		{"nobody stands on it", copies("missing", ""), nil, nil, nil},
		{"missing", copies("missing", "the file is gone"), []template.Ref{ref(vm1, "vda", "default"), ref(vm2, "vda", "default")}, nil, map[api.Ref][]string{
			vm1: {`disk "vda" stands on template "rocky9", whose copy on pool "default" is missing: the file is gone`},
			vm2: {`disk "vda" stands on template "rocky9", whose copy on pool "default" is missing: the file is gone`},
		}},
		{"on the way back", copies("syncing", ""), []template.Ref{ref(vm1, "vdb", "default"), ref(vm1, "vda", "default")}, nil, map[api.Ref][]string{
			vm1: {
				`disk "vda" stands on template "rocky9", whose copy on pool "default" is syncing`,
				`disk "vdb" stands on template "rocky9", whose copy on pool "default" is syncing`,
			},
		}},
		{"on another copy", copies("failed", "no"), []template.Ref{ref(vm1, "vda", "fast")}, nil, nil},
		{"on a copy that is no more", nil, []template.Ref{ref(vm1, "vda", "default")}, nil, map[api.Ref][]string{
			vm1: {`disk "vda" stands on template "rocky9", whose copy on pool "default" is missing`},
		}},
		{"only the chain tells", copies("failed", "changed"), nil, []template.Use{use(vm1, "vda", "/images/base"), use(vm2, "vda", "/fast/base")}, map[api.Ref][]string{
			vm1: {`disk "vda" stands on template "rocky9", whose copy on pool "default" is failed: changed`},
		}},
		{"both tell", copies("failed", "changed"), []template.Ref{ref(vm1, "vda", "default")}, []template.Use{use(vm1, "vda", "/images/base")}, map[api.Ref][]string{
			vm1: {`disk "vda" stands on template "rocky9", whose copy on pool "default" is failed: changed`},
		}},
		{"a volume of no instance", copies("failed", "changed"), nil, []template.Use{use(api.Ref{}, "", "/images/base")}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			all := []template.Template{{ID: "rocky9", Copies: row.copies, Refs: row.refs}}
			if row.want == nil {
				row.want = map[api.Ref][]string{}
			}
			if d := cmp.Diff(row.want, health(all, row.found)); d != "" {
				t.Error(d)
			}
		})
	}
}
