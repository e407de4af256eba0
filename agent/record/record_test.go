package record_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sample(project, name string) api.Record {
	return api.Record{Project: project, Name: name, UUID: "u-" + name, DomainXML: "<domain>\n  <name>x</name>\n</domain>",
		Template: "rocky9", PowerState: "running", UpdatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Disks:   []api.RecordDisk{{Target: "vda", Pool: "default", Path: "/images/" + name, Format: "qcow2", DirectDownload: true, Owned: true}},
		Targets: []api.Target{{Type: "iscsi", Portal: "h:3260", IQN: "iqn.x", LUN: 2, CHAP: &api.CHAP{User: "u", Secret: "s3cret"}}}}
}

// What was written is read, whole: it is all there is when nothing else answers.
func TestRecordComesBack(t *testing.T) {
	dir := record.Dir(t.TempDir())
	want := sample("blue", "vm1")
	must(t, dir.Write(want))
	want.PowerState = "stopped"
	must(t, dir.Write(want))
	got, err := dir.Read(api.Ref{Project: "blue", Name: "vm1"})
	must(t, err)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	// Logins are in it.
	for path, mode := range map[string]os.FileMode{"blue": 0o700, "blue/vm1.yaml": 0o600} {
		info, err := os.Stat(filepath.Join(string(dir), path))
		must(t, err)
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %o; want %o", path, info.Mode().Perm(), mode)
		}
	}
	entries, err := os.ReadDir(filepath.Join(string(dir), "blue"))
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("files %v; want the record alone", entries)
	}
}

func TestNoProjectIsTheDefaultOne(t *testing.T) {
	dir := record.Dir(t.TempDir())
	must(t, dir.Write(sample("", "vm1")))
	if _, err := dir.Read(api.Ref{Project: api.DefaultProject, Name: "vm1"}); err != nil {
		t.Error(err)
	}
	must(t, dir.Remove(api.Ref{Name: "vm1"}))
	if _, err := dir.Read(api.Ref{Name: "vm1"}); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("error %v; want ErrNotFound", err)
	}
	if err := dir.Remove(api.Ref{Name: "vm1"}); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

// No name leads out of the folder.
func TestNamesStayInTheFolder(t *testing.T) {
	root := t.TempDir()
	dir := record.Dir(filepath.Join(root, "records"))
	for _, ref := range []api.Ref{{Name: ""}, {Name: "../vm"}, {Name: "a/b"}, {Name: ".hidden"}, {Name: "a\x00b"},
		{Project: "..", Name: "vm"}, {Project: "a/b", Name: "vm"}, {Project: ".", Name: "vm"}} {
		r := sample(ref.Project, ref.Name)
		if err := dir.Write(r); err == nil {
			t.Errorf("%q was written", ref)
		}
		if _, err := dir.Read(ref); err == nil || errors.Is(err, record.ErrNotFound) {
			t.Errorf("reading %q: %v; want a refusal", ref, err)
		}
		if err := dir.Remove(ref); err == nil {
			t.Errorf("%q was removed", ref)
		}
	}
	if entries, _ := os.ReadDir(root); len(entries) != 0 {
		t.Errorf("files %v", entries)
	}
}

// One damaged file hides no other, and is said.
func TestDamagedRecords(t *testing.T) {
	dir := record.Dir(t.TempDir())
	must(t, dir.Write(sample("default", "good")))
	must(t, dir.Write(sample("blue", "good")))
	bad := filepath.Join(string(dir), "default", "bad.yaml")
	must(t, os.WriteFile(bad, []byte("name: [\n"), 0o600))
	huge := filepath.Join(string(dir), "default", "huge.yaml")
	must(t, os.WriteFile(huge, nil, 0o600))
	must(t, os.Truncate(huge, 1<<30))
	got, err := dir.List()
	if len(got) != 2 {
		t.Errorf("%d records; want the two good ones", len(got))
	}
	for _, name := range []string{bad, huge} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v does not name %s", err, name)
		}
	}
}

func TestEmptyFolder(t *testing.T) {
	got, err := record.Dir(filepath.Join(t.TempDir(), "none")).List()
	if len(got) != 0 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// A record that cannot be written must not be half there.
func TestWriteFails(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "blue"), nil, 0o600))
	if err := record.Dir(root).Write(sample("blue", "vm")); err == nil {
		t.Error("a project that is a file was written to")
	}
}

// A name may be used again by an instance that Wherry knows nothing of.
func TestOfAnotherInstance(t *testing.T) {
	dir, ref := record.Dir(t.TempDir()), api.Ref{Name: "vm1"}
	must(t, dir.Write(sample("default", "vm1")))
	if r, err := dir.Of(ref, "u-vm1"); err != nil || r.Template != "rocky9" {
		t.Errorf("got %+v, %v", r, err)
	}
	if r, err := dir.Of(ref, "u-other"); !errors.Is(err, record.ErrNotFound) || r.Template != "" {
		t.Errorf("got %+v, %v; want ErrNotFound", r, err)
	}
}

// What an interrupted write left holds secrets.
func TestTidy(t *testing.T) {
	dir, ref := record.Dir(t.TempDir()), api.Ref{Name: "vm1"}
	must(t, dir.Write(sample("default", "vm1")))
	left := filepath.Join(string(dir), "default", ".vm1.yaml4711")
	must(t, os.WriteFile(left, []byte("secret"), 0o600))
	must(t, dir.Tidy(ref, time.Now().Add(time.Hour)))
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v; want it gone", err)
	}
	if _, err := dir.Read(ref); err != nil {
		t.Error(err)
	}
	if err := dir.Tidy(api.Ref{Name: "../vm1"}, time.Now()); err == nil {
		t.Error("a name led out of the folder")
	}
}
