package source_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

var (
	md5sum = strings.Repeat("0a", 16)
	sha1   = strings.Repeat("1b", 20)
	sha256 = strings.Repeat("2c", 32)
	sha512 = strings.Repeat("3d", 64)
)

// document is a Metalink of version 4 with one file.
func document(inside string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a.qcow2">` + inside + `</file></metalink>`
}

func urls(all ...string) (out string) {
	for i, u := range all {
		out += fmt.Sprintf(`<url priority="%d">%s</url>`, i+1, u)
	}
	return out
}

// resolve reads a document over http and lists what it led to.
func resolve(t *testing.T, doc string) (source.Resolved, []string, error) {
	t.Helper()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/metalink4+xml")
		fmt.Fprint(w, doc)
	})
	found, err := download(source.Options{}).Resolve(t.Context(), source.Request{URL: s.URL + "/a.qcow2.meta4?q=s3cret"})
	var names []string
	for _, o := range found.Origins {
		names = append(names, o.Name())
	}
	if err != nil && strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a secret is told: %v", err)
	}
	return found, names, err
}

func TestMetalink(t *testing.T) {
	for name, tt := range map[string]struct {
		doc       string
		names     []string
		checksums []string
		size      int64
	}{
		"usual": {
			document(`<size> 10 </size><hash type="sha-256">` + sha256 + `</hash>` + urls("https://a.example/x", "http://b.example/x")),
			[]string{"https://a.example/x", "http://b.example/x"}, []string{"sha256:" + sha256}, 10,
		},
		"by priority": {
			document(`<url>http://d/</url><url priority="20">http://c/</url><url priority="3">http://b/</url><url priority="0">http://e/</url><url priority="1">http://a/</url>`),
			[]string{"http://a/", "http://b/", "http://c/", "http://d/", "http://e/"}, nil, -1,
		},
		"https before http": {
			document(`<url priority="1">http://b/</url><url priority="1">https://a/</url><url priority="2">https://c/</url>`),
			[]string{"https://a/", "http://b/", "https://c/"}, nil, -1,
		},
		"strongest hash first": {
			document(`<hash type="md5">` + md5sum + `</hash><hash type="SHA-512"> ` + strings.ToUpper(sha512) + ` </hash><hash type="whirlpool">00</hash>` +
				`<hash type="sha-1">` + sha1 + `</hash><hash type="sha-256">` + sha256 + `</hash>` + urls("http://a/")),
			[]string{"http://a/"}, []string{"sha512:" + sha512, "sha256:" + sha256, "sha1:" + sha1, "md5:" + md5sum}, -1,
		},
		"the same hash twice": {
			document(`<hash type="sha-256">` + sha256 + `</hash><hash type="sha256">` + sha256 + `</hash>` + urls("http://a/")),
			[]string{"http://a/"}, []string{"sha256:" + sha256}, -1,
		},
		"other schemes and broken URLs are passed over": {
			document(urls("ftp://a/x", "file:///etc/passwd", "magnet:?x", "rsync://a/x", "http://[::1", "", "http://user:pass@a/x?q=1")),
			[]string{"http://a/x?..."}, nil, -1,
		},
		"hashes of pieces are not of the file": {
			document(`<pieces length="4" type="sha-256"><hash>` + sha256 + `</hash></pieces>` + urls("http://a/")),
			[]string{"http://a/"}, nil, -1,
		},
		"the file of the name": {
			strings.Replace(document(urls("http://a/")), "<file", `<file name="b.iso"><url>http://b/</url></file><file`, 1),
			[]string{"http://a/"}, nil, -1,
		},
		"version 3": {
			`<metalink version="3.0" xmlns="http://www.metalinker.org/"><files><file name="a.qcow2"><size>10</size>
			<verification><hash type="sha256">` + sha256 + `</hash></verification><resources maxconnections="1">
			<url protocol="rsync" type="rsync" location="DE" preference="100">rsync://c/x</url>
			<url protocol="http" type="http" location="DE" preference="99">http://b/x</url>
			<url protocol="https" type="https" location="DE" preference="100">https://a/x</url></resources></file></files></metalink>`,
			[]string{"https://a/x", "http://b/x"}, []string{"sha256:" + sha256}, 10,
		},
	} {
		t.Run(name, func(t *testing.T) {
			found, names, err := resolve(t, tt.doc)
			must(t, err)
			if diff := cmp.Diff(tt.names, names); diff != "" {
				t.Errorf("origins: %s", diff)
			}
			if diff := cmp.Diff(tt.checksums, found.Checksums); diff != "" {
				t.Errorf("checksums: %s", diff)
			}
			if found.Size != tt.size {
				t.Errorf("size %d", found.Size)
			}
		})
	}
}

func TestMetalinksThatAreRefused(t *testing.T) {
	for name, tt := range map[string]struct{ doc, code, words string }{
		"HTML":             {"<html><body>log in</body></html>", fault.Protocol, "not understood"},
		"empty":            {"", fault.Protocol, "not understood"},
		"cut":              {document("")[:80], fault.Protocol, "not understood"},
		"two documents":    {document(urls("http://a/")) + document(urls("http://b/")), fault.Protocol, ""},
		"no file":          {`<metalink xmlns="urn:ietf:params:xml:ns:metalink"></metalink>`, fault.Protocol, "no single file"},
		"other files":      {strings.Replace(document(""), `<file name="a.qcow2">`, `<file name="b"></file><file name="c">`, 1), fault.Protocol, `"a.qcow2"`},
		"no mirror":        {document(""), fault.NoSource, "names no mirror"},
		"only bad mirrors": {document(urls("ftp://a/x", "http:///x", "http://")), fault.Scheme, `scheme "ftp"`},
		"size":             {document("<size>-1</size>" + urls("http://a/")), fault.Protocol, `size "-1"`},
		"huge size":        {document("<size>99999999999999999999</size>" + urls("http://a/")), fault.Protocol, "size"},
		"short hash":       {document(`<hash type="sha-256">00</hash>` + urls("http://a/")), fault.Protocol, "sha256 is malformed"},
		"odd hash":         {document(`<hash type="sha-256">` + strings.Repeat("z", 64) + `</hash>` + urls("http://a/")), fault.Protocol, "sha256 is malformed"},
		"two hashes": {
			document(`<hash type="md5">` + md5sum + `</hash><hash type="md5">` + strings.Repeat("0", 32) + `</hash>` + urls("http://a/")),
			fault.Protocol, "two different hashes of the type md5",
		},
		"entities":  {`<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + document(urls("http://&e;/")), fault.Protocol, "not understood"},
		"very long": {document(strings.Repeat(" ", 1<<20)), fault.TooLarge, "over 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := resolve(t, tt.doc)
			wantFault(t, err, tt.code, tt.words)
		})
	}
}

func TestMirrorsAreNotEndless(t *testing.T) {
	var all []string
	for i := range 1000 {
		all = append(all, fmt.Sprintf("http://%d.example/", i))
	}
	found, _, err := resolve(t, document(urls(all...)))
	if err != nil || len(found.Origins) != 32 {
		t.Errorf("%d origins, %v", len(found.Origins), err)
	}
}

func TestMetalinkOverHTTPSLeadsToHTTPOnlyWithAHash(t *testing.T) {
	inside := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, document(inside+urls("http://b.example/x?q=s3cret")))
	}))
	defer s.Close()
	d := download(source.Options{Authorities: authorities(s)})
	request := source.Request{URL: s.URL + "/a.METALINK"}
	for _, inside = range []string{"", `<hash type="sha-1">` + sha1 + `</hash>`} {
		_, err := d.Resolve(t.Context(), request)
		wantFault(t, err, fault.Redirect, "http://b.example/x?...")
	}
	inside = `<hash type="sha-256">` + sha256 + `</hash>`
	if found, err := d.Resolve(t.Context(), request); err != nil || len(found.Origins) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
}

// A mirror gets the caller's headers only where the document came from.
func TestHeadersOfAMetalink(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, told(r)) })
	var s *site
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".meta4") {
			fmt.Fprint(w, document(urls(s.URL+"/x", other.URL+"/x")))
			return
		}
		fmt.Fprint(w, told(r))
	})
	found, err := download(source.Options{}).Resolve(t.Context(), source.Request{URL: s.URL + "/a.meta4", Headers: token})
	must(t, err)
	for i, want := range []string{"operatorX-Token,Authorization,Cookie", "wherry"} {
		if got, _, err := read(t, found.Origins[i], source.At{}); err != nil || got != want {
			t.Errorf("%s was told %q, %v", found.Origins[i].Name(), got, err)
		}
	}
}

func TestMirrorOfAnotherSize(t *testing.T) {
	mirror := serveContent(t, content)
	found, _, err := resolve(t, document("<size>11</size>"+urls(mirror.URL+"/x?q=1")))
	must(t, err)
	_, _, err = read(t, found.Origins[0], source.At{})
	wantFault(t, err, fault.Size, mirror.URL+"/x?... has 10 bytes, the Metalink says 11")
	// Of unknown length it is known at the end.
	endless := raw(t, func(int, *http.Request) string { return "HTTP/1.0 200 OK\r\n\r\n" + content })
	found, _, err = resolve(t, document("<size>11</size>"+urls(endless.URL)))
	must(t, err)
	got, _, err := read(t, found.Origins[0], source.At{})
	wantFault(t, err, fault.Truncated, "after 10 of 11 bytes")
	if got != content {
		t.Errorf("read %q", got)
	}
	found, _, err = resolve(t, document("<size>9</size>"+urls(endless.URL)))
	must(t, err)
	_, _, err = read(t, found.Origins[0], source.At{})
	wantFault(t, err, fault.Size, "more than the 9 bytes")
}

func TestMetalinkInAFile(t *testing.T) {
	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "a.meta4"), []byte(document(urls("http://a/x", "file:///etc/passwd"))), 0o600))
	found, err := download(source.Options{Files: []string{folder}}).Resolve(t.Context(), source.Request{URL: "file://" + folder + "/a.meta4"})
	if err != nil || len(found.Origins) != 1 || found.Origins[0].Name() != "http://a/x" {
		t.Errorf("%+v, %v", found, err)
	}
}

// A server may answer any URL with a Metalink, by its type.
func TestMetalinkByItsType(t *testing.T) {
	mirror := serveContent(t, content)
	broken := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	doc := ""
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/metalink4+xml; charset=utf-8")
		fmt.Fprint(w, doc)
	})
	d := download(source.Options{})
	doc = document(urls(broken.URL+"/x", mirror.URL+"/x"))
	o := origin(t, d, s.URL+"/a", nil)
	if got, _, err := read(t, o, source.At{}); err != nil || got != content {
		t.Errorf("%q, %v", got, err)
	}
	got, stream, err := read(t, o, source.At{Offset: 4, Validator: source.Validator{ETag: `"v1"`, Total: 10}})
	if err != nil || got != content[4:] || stream.Offset != 4 {
		t.Errorf("%q, %+v, %v", got, stream, err)
	}
	doc = document(urls(broken.URL+"/x", broken.URL+"/y"))
	_, _, err = read(t, o, source.At{})
	wantFault(t, err, fault.HTTPStatus, broken.URL+"/x: 503", broken.URL+"/y: 503")
	// It must not lead on and on.
	doc = document(urls(s.URL + "/b"))
	_, _, err = read(t, o, source.At{})
	wantFault(t, err, fault.Protocol, "another Metalink")
}
