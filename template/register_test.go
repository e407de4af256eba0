package template_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template"
)

func TestRegisterNamesEveryBadField(t *testing.T) {
	h := newHost(t)
	good := spec("rocky9", "https://images.example/rocky9", []byte("x"))
	tests := map[string]struct {
		change func(*template.Spec)
		fields string
	}{
		"no id":              {func(s *template.Spec) { s.ID = "" }, "id"},
		"id with a path":     {func(s *template.Spec) { s.ID = "../etc" }, "id"},
		"id too long":        {func(s *template.Spec) { s.ID = strings.Repeat("a", 129) }, "id"},
		"no checksum":        {func(s *template.Spec) { s.Checksum = "" }, "checksum"},
		"crc32":              {func(s *template.Spec) { s.Checksum = "crc32:00000000" }, "checksum"},
		"short md5":          {func(s *template.Spec) { s.Checksum = "md5:d41d8cd98f00b204e9800998ecf842" }, "checksum"},
		"short checksum":     {func(s *template.Spec) { s.Checksum = s.Checksum[:70] }, "checksum"},
		"checksum not hex":   {func(s *template.Spec) { s.Checksum = s.Checksum[:70] + "z" }, "checksum"},
		"format":             {func(s *template.Spec) { s.Format = "vmdk" }, "format"},
		"no format":          {func(s *template.Spec) { s.Format = "" }, "format"},
		"no url":             {func(s *template.Spec) { s.URL = "" }, "url"},
		"no scheme":          {func(s *template.Spec) { s.URL = "//host/x" }, "url"},
		"no host":            {func(s *template.Spec) { s.URL = "http:///x" }, "url"},
		"not a url":          {func(s *template.Spec) { s.URL = "http://[::1" }, "url"},
		"password in url":    {func(s *template.Spec) { s.URL = "https://u:secret@host/x" }, "url"},
		"file of a host":     {func(s *template.Spec) { s.URL = "file://host" + h.files + "/x" }, "url"},
		"pool":               {func(s *template.Spec) { s.Pool = "nowhere" }, "pool"},
		"sync_from":          {func(s *template.Spec) { s.SyncFrom = "http://peer:8470" }, "sync_from"},
		"header name":        {func(s *template.Spec) { s.Headers = map[string]string{"X Y": "v"} }, "headers.X Y"},
		"header injection":   {func(s *template.Spec) { s.Headers = map[string]string{"X": "v\r\nY: z"} }, "headers.X"},
		"header of transfer": {func(s *template.Spec) { s.Headers = map[string]string{"range": "bytes=0-1"} }, "headers.range"},
		"all at once": {func(s *template.Spec) { *s = template.Spec{Pool: "nowhere"} },
			"id checksum format url pool"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := good
			tt.change(&s)
			_, err := h.Register(t.Context(), s)
			bad, ok := errors.AsType[template.FieldErrors](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			var fields []string
			for _, f := range bad {
				fields = append(fields, f.Field)
				if f.Detail == "" || strings.Contains(f.Detail, "secret") {
					t.Errorf("detail %q", f.Detail)
				}
			}
			if diff := cmp.Diff(tt.fields, strings.Join(fields, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := h.List(); len(got) != 0 {
		t.Errorf("a refused template was registered: %+v", got)
	}
}

func TestRegister(t *testing.T) {
	h := newHost(t)
	s := spec("rocky9", "https://images.example/rocky9", []byte("x"))
	s.Checksum = strings.ToUpper(s.Checksum)
	first, err := h.Register(t.Context(), s)
	must(t, err)
	if first.Digest != sha([]byte("x")) || first.Pool != "default" || first.Copies[0].State != template.StatePending {
		t.Errorf("registered as %+v", first)
	}

	again, err := h.Register(t.Context(), s)
	must(t, err)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same again is another: %s", diff)
	}

	moved := s
	moved.URL, moved.Pool = "https://mirror.example/rocky9", "other"
	got, err := h.Register(t.Context(), moved)
	must(t, err)
	if got.URL != moved.URL || len(got.Copies) != 2 || got.Pool != "default" {
		t.Errorf("from a mirror, onto another pool: %+v", got)
	}

	for name, change := range map[string]func(*template.Spec){
		"checksum":        func(s *template.Spec) { s.Checksum = sha([]byte("y")) },
		"format":          func(s *template.Spec) { s.Format = "qcow2" },
		"direct_download": func(s *template.Spec) { s.DirectDownload = false },
	} {
		other := s
		change(&other)
		_, err := h.Register(t.Context(), other)
		if !errors.Is(err, template.ErrConflict) || !strings.Contains(err.Error(), "rocky9") {
			t.Errorf("other %s: %v", name, err)
		}
	}
	h.reopen()
	kept, _ := h.Lookup("rocky9")
	for i := range kept.Copies {
		if kept.Copies[i].RetryAt == nil {
			t.Error("nobody is left to fetch a pending copy")
		}
		kept.Copies[i].RetryAt, kept.Copies[i].UpdatedAt = nil, got.Copies[i].UpdatedAt
	}
	if diff := cmp.Diff(got, kept); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
}

// A tombstone may be replaced only where nobody can be misled by it.
func TestRegisterOverATombstone(t *testing.T) {
	content, other := raw(1, 4096), raw(2, 4096)
	for name, tt := range map[string]struct {
		referred, direct bool
		ok               bool
	}{
		"unused":                {direct: true, ok: true},
		"volumes stand on it":   {direct: true, referred: true},
		"other direct_download": {direct: false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.ready(spec("rocky9", serveBytes(t, content).URL, content))
			if tt.referred {
				must(t, h.AddRef(t.Context(), "rocky9", template.Ref{Volume: "/v"}))
			}
			_, err := h.Remove(t.Context(), "rocky9")
			must(t, err)
			s := spec("rocky9", serveBytes(t, other).URL, other)
			s.DirectDownload = tt.direct
			_, err = h.Register(t.Context(), s)
			if tt.ok != (err == nil) || err != nil && !errors.Is(err, template.ErrConflict) {
				t.Fatalf("register: %v", err)
			}
			if tt.ok {
				must(t, h.Fetch(t.Context(), "rocky9", nil))
				if got, c := h.copyOf("rocky9"); got.Digest != sha(other) || got.Removed() || c.State != template.StateReady {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}

func TestLookups(t *testing.T) {
	h := newHost(t)
	content := raw(1, 4096)
	tmpl, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	if got, on, ok := h.ByPath(c.Path + "/"); !ok || got.ID != "a" || on.Pool != "default" {
		t.Errorf("by path: %+v, %t", got, ok)
	}
	if _, _, ok := h.ByPath(c.Path[:len(c.Path)-1]); ok {
		t.Error("a prefix of a path is another path")
	}
	for _, format := range []string{"", "raw"} {
		if got, _, ok := h.ByDigest(strings.ToUpper(tmpl.Digest), format); !ok || got.ID != "a" {
			t.Errorf("by digest as %q: %+v, %t", format, got, ok)
		}
	}
	for _, miss := range [][2]string{{tmpl.Digest, "qcow2"}, {"", ""}, {sha([]byte("x")), ""}} {
		if _, _, ok := h.ByDigest(miss[0], miss[1]); ok {
			t.Errorf("found %v", miss)
		}
	}
	if _, err := h.Get("b"); !errors.Is(err, template.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if direct, known := h.DirectDownload("b"); direct || known {
		t.Errorf("unknown: direct %t, known %t", direct, known)
	}
	// What a reader does with the answer is its own affair.
	tmpl.Copies[0].State = "changed"
	if got, _ := h.Lookup("a"); got.Copies[0].State != template.StateReady {
		t.Error("a reader changed the registry")
	}
	if s := fmt.Sprint(template.FieldErrors{{Field: "id", Detail: "no"}, {Field: "url", Detail: "no"}}); s != "id: no; url: no" {
		t.Errorf("field errors: %q", s)
	}
}

// The registry vouches for the bytes of a file only while it is the one that
// was read.
func TestVouch(t *testing.T) {
	h := newHost(t)
	content := raw(1, 4096)
	tmpl, c := h.ready(spec("a", serveBytes(t, content).URL, content))
	vouched := func(path string) (string, bool) {
		t.Helper()
		info, err := os.Lstat(path)
		must(t, err)
		return h.Vouch(path, info)
	}
	if digest, ok := vouched(c.Path); !ok || digest != tmpl.Digest {
		t.Errorf("ready copy: %q, %t; want %q", digest, ok, tmpl.Digest)
	}
	beside := filepath.Join(h.pool, "beside")
	must(t, os.WriteFile(beside, content, 0o600))
	if digest, ok := vouched(beside); ok {
		t.Errorf("a file of nobody's: %q", digest)
	}
	must(t, os.Chmod(c.Path, 0o600))
	must(t, os.WriteFile(c.Path, []byte("other bytes"), 0o600))
	if digest, ok := vouched(c.Path); ok {
		t.Errorf("a copy that was written to: %q", digest)
	}
	must(t, os.Rename(beside, c.Path))
	if digest, ok := vouched(c.Path); ok {
		t.Errorf("another file at the copy's place: %q", digest)
	}
}
