package templates

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
)

func TestHealth(t *testing.T) {
	vm1, vm2 := api.Ref{Project: "default", Name: "vm1"}, api.Ref{Project: "blue", Name: "vm2"}
	ref := func(known string, r api.Ref, disk, pool string) api.TemplateRef {
		return api.TemplateRef{Known: known, Project: r.Project, Instance: r.Name, Disk: disk, Volume: "/images/" + r.Name + disk, Pool: pool}
	}
	copies := func(state, message string) []api.TemplateCopy {
		return []api.TemplateCopy{{Pool: "default", Path: "/images/copy", State: state, Message: message}, {Pool: "fast", State: "ready"}}
	}
	const is = `disk "vda" stands on template "rocky9", whose copy on pool "default" `
	for _, row := range []struct {
		name   string
		copies []api.TemplateCopy
		refs   []api.TemplateRef
		want   map[api.Ref][]string
	}{
		{"sound", copies("ready", ""), []api.TemplateRef{ref("both", vm1, "vda", "default")}, nil},
		{"nobody stands on it", copies("missing", ""), nil, nil},
		{"missing", copies("missing", "the file is gone"), []api.TemplateRef{ref("both", vm1, "vda", "default"), ref("both", vm2, "vda", "default")},
			map[api.Ref][]string{vm1: {is + "is lost: the file is gone"}, vm2: {is + "is lost: the file is gone"}}},
		{"on the way back", copies("syncing", ""), []api.TemplateRef{ref("both", vm1, "vdb", "default"), ref("both", vm1, "vda", "default")},
			map[api.Ref][]string{vm1: {is + "is being brought again", `disk "vdb" stands on template "rocky9", whose copy on pool "default" is being brought again`}}},
		{"on another copy", copies("failed", "no"), []api.TemplateRef{ref("both", vm1, "vda", "fast")}, nil},
		{"on a copy that is no more", nil, []api.TemplateRef{ref("recorded", vm1, "vda", "default")}, map[api.Ref][]string{vm1: {is + "is lost"}}},
		{"only the chain tells", copies("failed", "changed"), []api.TemplateRef{ref("found", vm1, "vda", "default"), ref("found", vm2, "vda", "fast")},
			map[api.Ref][]string{vm1: {is + "is lost, and could not be brought again: changed"}}},
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

// Each state reads as the end of a sentence, and a copy that never was there is
// not called lost.
func TestPlight(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 5, 0, 0, time.UTC)
	for _, row := range []struct {
		c             api.TemplateCopy
		plight, after string
	}{
		{api.TemplateCopy{State: "ready"}, "is ready", " (state ready)"},
		{api.TemplateCopy{State: "missing", Path: "/c", Code: "changed", Message: "the file is gone", RetryAt: &at},
			"is lost: the file is gone", " (state missing); the next attempt is at 2026-11-21T12:05:00Z"},
		{api.TemplateCopy{State: "missing", Path: "/c", Message: "the file is gone"},
			"is lost: the file is gone", " (state missing); it is not tried again by itself"},
		{api.TemplateCopy{State: "failed", Path: "/c", Code: "changed", Message: "it is another size", RetryAt: &at},
			"has changed: it is another size", " (state failed); the next attempt is at 2026-11-21T12:05:00Z"},
		{api.TemplateCopy{State: "failed", Path: "/c", Code: "http-status", Message: "404", RetryAt: &at},
			"is lost, and could not be brought again: 404", " (state failed); the next attempt is at 2026-11-21T12:05:00Z"},
		{api.TemplateCopy{State: "failed", Code: "image", Message: "it has a backing file"},
			"could not be brought: it has a backing file", " (state failed); it is not tried again by itself"},
		{api.TemplateCopy{State: "pending"}, "is not brought yet", " (state pending)"},
		{api.TemplateCopy{State: "pending", Path: "/c", Message: "waiting: 4 downloads at once"},
			"is not brought again yet: waiting: 4 downloads at once", " (state pending)"},
		{api.TemplateCopy{State: "downloading", Origin: "https://images"}, "is being brought from https://images", " (state downloading)"},
		{api.TemplateCopy{State: "syncing", Path: "/c", Origin: "peer https://b"}, "is being brought again from peer https://b", " (state syncing)"},
		{api.TemplateCopy{State: "verifying", Path: "/c"}, "is being verified", " (state verifying)"},
		{api.TemplateCopy{State: "verifying", Path: "/c", Message: "the file was written to, and is being read again"},
			"is in doubt: the file was written to, and is being read again", " (state verifying)"},
	} {
		if got := plight(row.c); got != row.plight {
			t.Errorf("%+v %q; want %q", row.c, got, row.plight)
		}
		if got := outlook(row.c); got != row.plight+row.after {
			t.Errorf("%+v %q; want %q", row.c, got, row.plight+row.after)
		}
	}
}
