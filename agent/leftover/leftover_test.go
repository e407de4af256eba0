package leftover_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/leftover"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a host with one pool.
type world struct {
	t         testing.TB
	pool      string
	pools     []api.Pool
	domains   []hypervisor.Domain
	live      map[string]string
	next      map[string]string
	chains    template.Chains
	named     []string
	errs      map[string]error // by who fails
	refreshed []string
	later     time.Duration
	host      machine
	*leftover.Service
}

func (w *world) Domains(context.Context) ([]hypervisor.Domain, error) {
	return w.domains, w.errs["domains"]
}

func (w *world) XML(_ context.Context, name string, inactive bool) (string, error) {
	if inactive {
		return w.next[name], w.errs["xml"]
	}
	return w.live[name], w.errs["xml"]
}

func (w *world) RefreshPool(_ context.Context, name string) error {
	w.refreshed = append(w.refreshed, name)
	return nil
}

func newWorld(t testing.TB) *world {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	w := &world{t: t, pool: dir, live: map[string]string{}, next: map[string]string{}, errs: map[string]error{}}
	w.pools = []api.Pool{{Name: "default", Path: dir, Active: true}}
	w.Service = &leftover.Service{Hypervisor: w, Records: record.Dir(t.TempDir()), Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Now().Add(w.later) },
		Pools:   func(context.Context) ([]api.Pool, error) { return w.pools, w.errs["pools"] },
		Chains:  func(context.Context) (template.Chains, error) { return w.chains, w.errs["chains"] },
		Machine: &w.host, Power: &w.host, Journal: &w.host, SecretSince: func(string) time.Time { return w.host.since },
		Named: []leftover.Named{func(add func(string, ...string)) error {
			add("a reservation", w.named...)
			return w.errs["named"]
		}}}
	return w
}

func (w *world) file(name string) string {
	w.t.Helper()
	path := filepath.Join(w.pool, name)
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(w.t, os.WriteFile(path, []byte(name), 0o600))
	return path
}

func (w *world) left() (names []string) {
	w.t.Helper()
	all, err := w.List(w.t.Context())
	must(w.t, err)
	for _, l := range all.Leftovers {
		if l.Why == "" || l.Delete == "" || l.ID != l.Path || l.Pool != "default" || l.ModifiedAt.IsZero() || l.Bytes == 0 {
			w.t.Errorf("%+v lacks something", l)
		}
		names = append(names, l.Kind+" "+strings.TrimPrefix(l.Path, w.pool+"/"))
	}
	return names
}

func (w *world) want(names ...string) {
	w.t.Helper()
	if got := w.left(); !slices.Equal(got, names) {
		w.t.Errorf("left over: %q; want %q", got, names)
	}
}

// Whatever names a file of the pool owns it, wherever that stands and by
// whatever path it leads there.
func TestOwners(t *testing.T) {
	disk := func(path string) string {
		return "<domain><disk><source file='" + path + "'/></disk></domain>"
	}
	for name, own := range map[string]func(w *world, path string){
		"a running instance": func(w *world, path string) {
			w.domains, w.live["vm"] = []hypervisor.Domain{{Name: "vm"}}, disk(path)
		},
		"its next definition": func(w *world, path string) {
			w.domains, w.next["vm"] = []hypervisor.Domain{{Name: "vm", Persistent: true}}, disk(path)
		},
		"firmware": func(w *world, path string) {
			w.domains, w.live["vm"] = []hypervisor.Domain{{Name: "vm"}}, "<domain><os><nvram template='/x'>"+path+"</nvram></os></domain>"
		},
		"an argument of QEMU": func(w *world, path string) {
			w.domains, w.live["vm"] = []hypervisor.Domain{{Name: "vm"}}, "<domain><qemu:arg value='file="+path+",if=none'/></domain>"
		},
		"an argument of QEMU in JSON": func(w *world, path string) {
			w.domains, w.next["vm"] = []hypervisor.Domain{{Name: "vm", Persistent: true}}, "<domain><qemu:arg value='{&quot;driver&quot;:&quot;file&quot;,&quot;filename&quot;:&quot;"+path+"&quot;}'/></domain>"
		},
		"a link": func(w *world, path string) {
			link := filepath.Join(w.t.TempDir(), "link")
			must(w.t, os.Symlink(path, link))
			w.domains, w.live["vm"] = []hypervisor.Domain{{Name: "vm"}}, disk(link)
		},
		"a chain": func(w *world, path string) {
			w.chains.Uses = []template.Use{{Instance: "vm", Volume: "/elsewhere", Layers: []template.File{{Path: "/elsewhere"}, template.FileAt(path)}}}
		},
		"a volume that nobody has": func(w *world, path string) {
			w.chains.Uses = []template.Use{{Volume: "/elsewhere", Layers: []template.File{{Path: "/elsewhere"}, template.FileAt(path)}}}
		},
		"a record": func(w *world, path string) {
			must(w.t, w.Records.Write(api.Record{Project: api.DefaultProject, Name: "vm", UUID: "u", DomainXML: "<domain/>", Disks: []api.RecordDisk{{Target: "vda", Path: path}}}))
		},
		"what another part says": func(w *world, path string) { w.named = []string{path} },
	} {
		t.Run(name, func(t *testing.T) {
			for _, file := range []string{"disk & more.qcow2", ".wherry-01JZZZ-vda"} {
				w := newWorld(t)
				path := w.file(file)
				if file[0] != '.' {
					path = strings.ReplaceAll(path, "&", "&amp;")
				}
				if len(w.left()) == 0 {
					t.Fatal("nothing was left over to begin with")
				}
				if strings.Contains(name, "chain") || strings.Contains(name, "nobody") || strings.Contains(name, "record") || strings.Contains(name, "part") || name == "a link" {
					path = filepath.Join(w.pool, file) // no XML
				}
				own(w, path)
				w.want()
			}
		})
	}
}

func TestKinds(t *testing.T) {
	w := newWorld(t)
	w.file(".wherry-01JZZZ-vda")
	w.file(".wherry-template-abc.partial/image")
	w.file(".wherry-probe-x")
	w.file(".wherry-lock")
	w.file("old.qcow2")
	w.file("somebody/else.qcow2")
	must(t, os.Symlink("/etc/passwd", filepath.Join(w.pool, "link")))
	w.want("volume .wherry-01JZZZ-vda", "partial .wherry-template-abc.partial", "file old.qcow2")
	w.later = 2 * time.Hour // a plan that looks for the probe is over then
	w.want("volume .wherry-01JZZZ-vda", "probe .wherry-probe-x", "partial .wherry-template-abc.partial", "file old.qcow2")
	// A download that goes on owns its folder by the file in it.
	w.named = []string{filepath.Join(w.pool, ".wherry-template-abc.partial/image")}
	// Snapshots have files that are not looked for.
	w.domains = []hypervisor.Domain{{Name: "vm", Snapshots: 1}}
	w.want("volume .wherry-01JZZZ-vda", "probe .wherry-probe-x")
}

// What other hosts may have too, or is not there, is not looked at, which the
// answer says.
func TestPoolsOfOthers(t *testing.T) {
	for why, pool := range map[string]api.Pool{
		"other hosts'": {Active: true, Identity: "nfs-1"},
		"not active":   {},
		"no folder":    {Active: true, Path: "rbd/images", Type: "rbd"},
	} {
		w := newWorld(t)
		w.file("old.qcow2")
		if pool.Path == "" {
			pool.Path = w.pool
		}
		pool.Name = "default"
		w.pools[0] = pool
		w.want()
		list, err := w.List(t.Context())
		must(t, err)
		if len(list.Skipped) != 1 || list.Skipped[0].What != "pool default" || !strings.Contains(list.Skipped[0].Why, why) {
			t.Errorf("skipped %+v; want the pool, since it is %s", list.Skipped, why)
		}
	}
}

// The operation that made a file is in its name.
func TestOperationOfAFile(t *testing.T) {
	w := newWorld(t)
	const id = "01JD7ZK3M8Q0V5W2X4Y6A8B0CD"
	w.file(".wherry-" + id + "-vda")
	w.file(".wherry-other")
	list, err := w.List(t.Context())
	must(t, err)
	if l := list.Leftovers; len(l) != 2 || l[0].Operation != id || l[1].Operation != "" {
		t.Errorf("left over: %+v", l)
	}
}

// While anything that may own a file cannot be read, nothing is left over, and
// nothing is deleted.
func TestWhatCannotBeRead(t *testing.T) {
	for _, who := range []string{"pools", "domains", "xml", "chains", "named", "unread", "ended", "claims"} {
		w := newWorld(t)
		path := w.file(".wherry-01JZZZ-vda")
		w.domains = []hypervisor.Domain{{Name: "vm", Persistent: true}}
		if who == "unread" {
			w.chains.Unread = []string{"instance vm"}
		} else {
			w.errs[who] = errors.New("it hangs")
			w.host.errs = w.errs
		}
		if _, err := w.List(t.Context()); api.CodeOf(err) != "not-ready" {
			t.Errorf("%s: %v", who, err)
		}
		if _, err := w.Delete(t.Context(), []string{path}); api.CodeOf(err) != "not-ready" {
			t.Errorf("%s: delete: %v", who, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: the file is gone", who)
		}
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	volumePath, old, owned, open := w.file(".wherry-01JZZZ-vda"), w.file("old.qcow2"), w.file("owned.qcow2"), w.file("open.qcow2")
	partial := filepath.Dir(w.file(".wherry-template-abc.partial/image"))
	w.named = []string{owned}
	held, err := os.Open(open)
	must(t, err)
	defer held.Close()
	out, err := w.Delete(t.Context(), []string{volumePath, partial, owned, open, "/etc/passwd", old + "/../old.qcow2"})
	must(t, err)
	if !slices.Equal(out.Deleted, []string{volumePath, partial}) {
		t.Errorf("deleted %q", out.Deleted)
	}
	if len(out.Kept) != 4 || out.Kept[0].Path != owned || out.Kept[1].Path != open || !strings.Contains(out.Kept[1].Why, "held open") {
		t.Errorf("kept %+v", out.Kept)
	}
	for path, want := range map[string]bool{volumePath: false, partial: false, owned: true, open: true, old: true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s exists: %v", path, err == nil)
		}
	}
	if !slices.Equal(w.refreshed, []string{"default"}) {
		t.Errorf("refreshed %q", w.refreshed)
	}
}

func TestPathsInJSON(t *testing.T) {
	got, err := leftover.PathsInJSON([]byte(`{"a":["/one",{"/two":{"x":"no/path","y":"<disk file='/three'/>"}}],"n":1,"z":null}`))
	must(t, err)
	slices.Sort(got)
	if !slices.Equal(got, []string{"/one", "/three", "/two"}) {
		t.Errorf("paths %q", got)
	}
	if _, err := leftover.PathsInJSON([]byte("{")); err == nil {
		t.Error("no error of what cannot be read")
	}
}
