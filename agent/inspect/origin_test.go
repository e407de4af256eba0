package inspect_test

import (
	"os"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
)

// Whether a disk stands on a direct download is known from the chain, the
// record and the registry; a removed template's tombstone still says it.
func TestOrigin(t *testing.T) {
	rec := func(disk api.RecordDisk) func(*world, string) {
		return func(w *world, _ string) {
			disk.Target = "vda"
			must(w.t, w.service.Records.Write(api.Record{Project: api.DefaultProject, Name: "vm", UUID: uuid, Disks: []api.RecordDisk{disk}}))
		}
	}
	for _, c := range []struct {
		name     string
		make     func(w *world, base string)
		template string
		direct   bool
	}{
		{"nobody knows", func(*world, string) {}, "", false},
		{"the base is a template", func(w *world, base string) { w.reg.byPath[base] = "t" }, "t", false},
		{"the base is a direct download", func(w *world, base string) { w.reg.byPath[base], w.reg.direct["t"] = "t", true }, "t", true},
		{"the record says so", rec(api.RecordDisk{Template: "t", DirectDownload: true}), "t", true},
		{"the record names a removed template", func(w *world, base string) {
			w.reg.direct["t"] = true
			rec(api.RecordDisk{Template: "t"})(w, base)
		}, "t", true},
		{"the record says no, the chain yes", func(w *world, base string) {
			w.reg.byPath[base], w.reg.direct["other"] = "other", true
			rec(api.RecordDisk{Template: "t"})(w, base)
		}, "other", true},
		{"the record of another instance that had the name", func(w *world, _ string) {
			must(w.t, w.service.Records.Write(api.Record{Project: api.DefaultProject, Name: "vm", UUID: "other",
				Disks: []api.RecordDisk{{Target: "vda", Template: "t", DirectDownload: true}}}))
		}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			base := w.qcow2("base.qcow2", "")
			active := w.qcow2("disk.qcow2", base)
			w.disk("file", active, "qcow2", base)
			w.open(layer(active), layer(base))
			c.make(w, base)
			d := w.only()
			if d.Template != c.template || d.DirectDownload != c.direct {
				t.Errorf("template %q, direct %v; want %q, %v", d.Template, d.DirectDownload, c.template, c.direct)
			}
		})
	}
}

// A disk that stands alone stands on no template, whatever was recorded; one
// that names none causes no look-up.
func TestStandaloneDisk(t *testing.T) {
	w := newWorld(t)
	active := w.qcow2("disk.qcow2", "")
	w.disk("file", active, "qcow2")
	w.open(layer(active))
	w.only()
	if w.reg.asked != 0 {
		t.Errorf("the registry was asked %d times", w.reg.asked)
	}
	w.reg.direct["t"] = true
	must(t, w.service.Records.Write(api.Record{Name: "vm", UUID: uuid, Disks: []api.RecordDisk{{Target: "vda", Template: "t", DirectDownload: true}}}))
	if d := w.only(); d.DirectDownload {
		t.Errorf("disk %+v; want no direct download", d)
	}
}

func TestRefMissing(t *testing.T) {
	w := newWorld(t)
	base := w.qcow2("base.qcow2", "")
	active := w.qcow2("disk.qcow2", base)
	w.disk("file", active, "qcow2", base)
	w.open(layer(active), layer(base))
	recorded := &api.Record{Disks: []api.RecordDisk{{Target: "vda", Template: "t"}}}
	if w.service.RefMissing(w.only(), recorded) {
		t.Error("a base that is no template here has no ref to lose")
	}
	w.reg.byPath[base] = "t"
	d := w.only()
	if w.service.RefMissing(d, nil) || w.service.RefMissing(d, &api.Record{Disks: []api.RecordDisk{{Target: "vda"}}}) {
		t.Error("an instance that Wherry did not make on a template has no ref to lose")
	}
	if !w.service.RefMissing(d, recorded) {
		t.Error("the lost ref was not missed")
	}
	w.reg.refs["t "+active] = true
	if w.service.RefMissing(d, recorded) {
		t.Error("the ref is there")
	}
}

func TestDamagedRecordStopsTheLook(t *testing.T) {
	w := newWorld(t)
	w.disk("file", w.qcow2("disk.qcow2", ""), "qcow2")
	must(t, os.MkdirAll(w.path("records/default"), 0o700))
	must(t, os.WriteFile(w.path("records/default/vm.yaml"), []byte("disks: 7\n"), 0o600))
	if _, err := w.service.Inspect(t.Context(), api.Ref{Name: "vm"}, nil); api.CodeOf(err) != "internal" {
		t.Errorf("error %v; a record that may hold the flag cannot be read", err)
	}
}
