package template_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
)

func ref(volume string) template.Ref {
	return template.Ref{Project: "default", Instance: "vm1", Disk: "vda", Volume: volume}
}

func TestRefs(t *testing.T) {
	h := newHost(t)
	content := raw(1, 4096)
	h.ready(spec("a", serveBytes(t, content).URL, content))
	other := raw(2, 4096)
	h.ready(spec("b", serveBytes(t, other).URL, other))

	must(t, h.AddRef(t.Context(), "a", ref("/pool/x")))
	must(t, h.AddRef(t.Context(), "a", ref("/pool/x"))) // updated, not doubled
	must(t, h.AddRef(t.Context(), "a", ref("/pool/xy")))
	must(t, h.UpdateRef(t.Context(), "/pool/nowhere", "a", ref("/pool/new"))) // inserted where there is none
	must(t, h.UpdateRef(t.Context(), "/pool/xy", "b", ref("/pool/z/")))       // moved to another volume and template

	want := func(id string, volumes ...string) {
		t.Helper()
		var got []string
		for _, r := range h.RefsOf(id) {
			got = append(got, r.Volume)
			if r.Template != id || r.Pool != "default" || r.Instance != "vm1" {
				t.Errorf("ref %+v", r)
			}
		}
		if diff := cmp.Diff(volumes, got); diff != "" {
			t.Errorf("refs of %s: %s", id, diff)
		}
	}
	want("a", "/pool/new", "/pool/x")
	want("b", "/pool/z")
	h.reopen()
	want("a", "/pool/new", "/pool/x")
	want("b", "/pool/z")
	if got, ok := h.RefByVolume("/pool/z"); !ok || got.Template != "b" {
		t.Errorf("by volume: %+v, %t", got, ok)
	}
	if got, _ := h.Get("a"); len(got.Refs) != 2 {
		t.Errorf("template shows refs %v", got.Refs)
	}
	must(t, h.RemoveRef(t.Context(), "/pool/x"))
	must(t, h.RemoveRef(t.Context(), "/pool/x"))
	want("a", "/pool/new")
	if _, ok := h.RefByVolume("/pool/x"); ok {
		t.Error("a removed ref is found")
	}
	wantErr(t, h.AddRef(t.Context(), "c", ref("/pool/q")), template.ErrNotFound, `"c"`)
	if err := h.AddRef(t.Context(), "a", ref("pool/relative")); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestRemove(t *testing.T) {
	h := newHost(t)
	content := raw(1, 4096)
	_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	must(t, os.WriteFile(h.pool+"/somebody-else", nil, 0o600))
	must(t, h.AddRef(t.Context(), "a", ref("/pool/x")))
	must(t, h.AddRef(t.Context(), "a", ref("/pool/y")))

	for range 2 {
		got, err := h.Remove(t.Context(), "a")
		must(t, err)
		if !got.Removed() || len(got.Refs) != 2 || got.Copies[0].State != template.StateReady {
			t.Errorf("removed while used: %+v", got)
		}
		h.reopen()
	}
	// It serves who stands on it, and nobody new but on what is there.
	must(t, h.AddRef(t.Context(), "a", ref("/pool/z")))
	for _, v := range []string{"/pool/x", "/pool/y", "/pool/z"} {
		if _, err := os.Stat(c.Path); err != nil {
			t.Errorf("gone while %s stands on it: %v", v, err)
		}
		must(t, h.RemoveRef(t.Context(), v))
	}
	if diff := cmp.Diff([]string{"somebody-else"}, h.inPool()); diff != "" {
		t.Errorf("pool: %s", diff)
	}
	wantErr(t, h.AddRef(t.Context(), "a", ref("/pool/late")), template.ErrNotFound)

	// The tombstone tells what the template was, for ever.
	h.reopen()
	if direct, known := h.DirectDownload("a"); !direct || !known {
		t.Errorf("direct %t, known %t", direct, known)
	}
	got, ok := h.Lookup("a")
	if !ok || !got.Removed() || got.Digest != sha(content) || len(got.Copies) != 0 {
		t.Errorf("tombstone %+v, %t", got, ok)
	}
	if all := h.List(); len(all) != 1 || !all[0].Removed() {
		t.Errorf("list %+v", all)
	}
	_, err := h.Remove(t.Context(), "b")
	wantErr(t, err, template.ErrNotFound)
}

func TestRemoveForgetsSecrets(t *testing.T) {
	h := newHost(t)
	s := spec("a", "https://images.example/a", []byte("x"))
	s.Headers = map[string]string{"Authorization": "Bearer secret"}
	_, err := h.Register(t.Context(), s)
	must(t, err)
	got, err := h.Remove(t.Context(), "a")
	must(t, err)
	if len(got.Headers) != 0 {
		t.Errorf("headers %v", got.Headers)
	}
}

// Two ids, one file: it stays as long as one of them is left.
func TestRemoveOneOfTwoIDs(t *testing.T) {
	h := newHost(t)
	content := raw(1, 4096)
	url := serveBytes(t, content).URL
	h.ready(spec("a", url, content))
	_, c := h.ready(spec("b", url, content))
	for _, id := range []string{"a", "b"} {
		if _, err := os.Stat(c.Path); err != nil {
			t.Fatalf("before removing %s: %v", id, err)
		}
		_, err := h.Remove(t.Context(), id)
		must(t, err)
	}
	if left := h.inPool(); len(left) != 0 {
		t.Errorf("pool: %v", left)
	}
}

// What somebody put in the file's place is not ours to delete.
func TestRemoveLeavesWhatIsNotOurs(t *testing.T) {
	content := raw(1, 4096)
	t.Run("replaced", func(t *testing.T) {
		h := newHost(t)
		_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
		replace(t, c.Path, content)
		_, err := h.Remove(t.Context(), "a")
		must(t, err)
		if _, err := os.Stat(c.Path); err != nil {
			t.Errorf("somebody's file was deleted: %v", err)
		}
	})
	t.Run("adopted", func(t *testing.T) {
		h := newHost(t)
		path := h.pool + "/" + published(content, "raw")
		must(t, os.WriteFile(path, content, 0o644))
		site := serveBytes(t, content)
		if _, c := h.ready(spec("a", site.URL, content)); c.Owned || site.requests.Load() != 0 {
			t.Errorf("copy %+v, %d requests", c, site.requests.Load())
		}
		_, err := h.Remove(t.Context(), "a")
		must(t, err)
		if _, err := os.Stat(path); err != nil {
			t.Errorf("somebody's file was deleted: %v", err)
		}
	})
}

// replace puts another file in a path's place, with another inode for sure.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", content, 0o600))
	must(t, os.Rename(path+".new", path))
}

// What somebody put at the place is moved aside, and never deleted.
func TestOccupiedPlace(t *testing.T) {
	content := raw(1, 4096)
	for name, put := range map[string]func(path string) error{
		"other bytes": func(path string) error { return os.WriteFile(path, raw(2, 4096), 0o644) },
		"a folder":    func(path string) error { return os.Mkdir(path, 0o755) },
		"a link":      func(path string) error { return os.Symlink("/etc/hostname", path) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			must(t, put(h.pool+"/"+published(content, "raw")))
			before, err := os.Lstat(h.pool + "/" + published(content, "raw"))
			must(t, err)
			_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
			left := h.inPool()
			if len(left) != 2 || left[0] != published(content, "raw") || !strings.HasPrefix(left[1], left[0]+".foreign-") {
				t.Fatalf("pool: %v", left)
			}
			aside, err := os.Lstat(h.pool + "/" + left[1])
			must(t, err)
			if !os.SameFile(before, aside) {
				t.Error("what lay there is not what lies aside")
			}
			if !c.Owned || !strings.Contains(c.Message, left[1]) {
				t.Errorf("copy %+v", c)
			}
		})
	}
}

// With SHA-512 the place is known only after the download.
func TestOccupiedPlaceFoundLate(t *testing.T) {
	content := raw(1, 4096)
	h := newHost(t)
	path := h.pool + "/" + published(content, "raw")
	must(t, os.WriteFile(path, content, 0o644))
	s := spec("a", serveBytes(t, content).URL, content)
	s.Checksum = sha5(content)
	if _, c := h.ready(s); c.Owned || c.State != template.StateReady {
		t.Errorf("copy %+v", c)
	}
	if left := h.inPool(); len(left) != 1 {
		t.Errorf("pool: %v", left)
	}
}

func TestMissingFile(t *testing.T) {
	content := raw(1, 4096)
	for name, lose := range map[string]func(t *testing.T, path string){
		"deleted":  func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"replaced": func(t *testing.T, path string) { replace(t, path, raw(3, 4096)) },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				h := newHost(t)
				_, c := h.ready(spec("a", serveBytes(t, content).URL, content))
				lose(t, c.Path)
				if restart {
					h.reopen()
				} else if _, _, err := h.OpenContent("a"); err == nil {
					t.Error("opened what is not the template")
				}
				if _, c := h.copyOf("a"); c.State != template.StateMissing || c.Message == "" {
					t.Errorf("copy %+v", c)
				}
				if _, _, ok := h.ByDigest(sha(content), ""); ok {
					t.Error("a missing copy is found by its digest")
				}
				must(t, h.Fetch(t.Context(), "a", nil))
				if _, c := h.copyOf("a"); c.State != template.StateReady || !c.Owned {
					t.Errorf("fetched again: %+v", c)
				}
				// The other file is not ours, and stays under another name.
				if left := h.inPool(); (name == "replaced") != (len(left) == 2) {
					t.Errorf("pool: %v", left)
				}
			})
		}
	}
}
