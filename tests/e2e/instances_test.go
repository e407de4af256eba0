//go:build lab

package e2e

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// The agent shows every domain of its host, whoever made it, and deletes of an
// instance only what Wherry made.
func TestInstancesOfEveryOrigin(t *testing.T) {
	w := begin(t)
	own, given, foreign := w.unique("own"), w.unique("given"), w.unique("foreign")
	tpl := w.template(w.a, w.unique("tpl"), w.picture("origin", w.Name()), false)

	// From a template, as a full clone: it stands alone, on the template's bytes.
	w.create(w.a, own, tpl.ID, "full")
	disks, err := w.a.api.Disks(w.ctx, api.Ref{Name: own})
	w.must(err)
	if len(disks) != 1 || len(disks[0].Chain) != 1 || !disks[0].Live {
		t.Errorf("disks %+v; want one that stands alone", disks)
	}
	if reports := w.alive(own, w.a); reports[0].Template == 0 {
		t.Errorf("guest reports %+v; want the template's blocks", reports)
	}

	// From the caller's own XML, disks and all.
	path := harness.ImagesPath + "/" + given + ".qcow2"
	w.volume(w.a, path, "qcow2")
	xml := harness.Domain{Name: given, Disks: []harness.Disk{{Target: "vda", Source: path}}}.XML()
	op, err := w.a.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: given, DomainXML: xml, Start: true}, "")
	w.run(w.a, op, err)
	w.must(w.lab.Guest(given).WaitBlock(w.ctx, w.a.Host, "vda", 3))

	// Past the agent.
	w.volume(w.a, harness.ImagesPath+"/"+foreign+".qcow2", "qcow2")
	w.foreign(w.a, harness.Domain{Name: foreign, Disks: []harness.Disk{{Target: "vda", Source: harness.ImagesPath + "/" + foreign + ".qcow2"}}})

	list, err := w.a.api.Instances(w.ctx, api.DefaultProject)
	w.must(err)
	for name, managed := range map[string]bool{own: true, given: true, foreign: false} {
		i := slices.IndexFunc(list, func(i api.Instance) bool { return i.Name == name })
		if i < 0 || list[i].State != "running" || list[i].Managed != managed {
			t.Errorf("list %+v; want %q running, managed %v", list, name, managed)
		}
	}

	// Delete wants them stopped; what the caller brought stays.
	_, err = w.a.api.Delete(w.ctx, api.Ref{Name: given}, api.DeleteRequest{}, "")
	w.problem(err, "precondition")
	for _, name := range []string{own, given} {
		op, err = w.a.api.Stop(w.ctx, api.Ref{Name: name}, api.StopRequest{}, "")
		op = w.run(w.a, op, err)
		var result api.StopResult
		w.must(json.Unmarshal(op.Result, &result))
		if result.Rung != api.RungAgent && result.Rung != api.RungACPI {
			t.Errorf("stop of %q: %s; want the guest to have powered off", name, op.Result)
		}
		op, err = w.a.api.Delete(w.ctx, api.Ref{Name: name}, api.DeleteRequest{}, "")
		w.run(w.a, op, err)
	}
	w.clean(own, w.a)
	w.exists(w.a, given+".qcow2", true)
	_, err = w.a.api.Instance(w.ctx, api.Ref{Name: given})
	w.problem(err, "not-found")
}

// What cannot be created is said at once, with the field, and leaves nothing.
func TestCreateRefusesWithTheField(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	tpl := w.template(w.a, w.unique("tpl"), w.picture("fields", w.Name()), false)
	for _, c := range []struct {
		what  string
		r     api.CreateRequest
		code  string
		field string
	}{
		{"a disk smaller than the template", api.CreateRequest{Name: name, Template: tpl.ID, DiskSize: imageSize - 512}, "bad-request", "disk_size"},
		{"an unknown template", api.CreateRequest{Name: name, Template: "no-such"}, "not-found", "template"},
		{"an unknown pool", api.CreateRequest{Name: name, Template: tpl.ID, Pool: "no-such"}, "bad-request", "pool"},
		{"XML of another name", api.CreateRequest{Name: name, DomainXML: harness.Domain{Name: "other"}.XML()}, "bad-request", "name"},
		{"XML that is none", api.CreateRequest{Name: name, DomainXML: "<domain"}, "bad-request", "domain_xml"},
	} {
		_, err := w.a.api.Create(w.ctx, api.DefaultProject, c.r, "")
		p := w.problem(err, c.code)
		if len(p.Fields) != 1 || p.Fields[0].Field != c.field {
			t.Errorf("%s: fields %+v; want %q", c.what, p.Fields, c.field)
		}
	}
	w.clean(name, w.a)
}
