//go:build lab

package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// faulty is a template that cannot be had, and what its copy is to say of it.
type faulty struct {
	what      string
	r         api.TemplateRequest
	code      string
	class     string
	says      []string
	permanent bool // not tried again by itself
}

// failing registers templates that all fail, at once, and judges each.
func (w *world) failing(on *side, cases []faulty) {
	w.Helper()
	ids := make([]string, len(cases))
	for i, c := range cases {
		ids[i] = fmt.Sprintf("%s-%d", w.unique("tpl"), i)
		c.r.ID = ids[i]
		// Templates with the same bytes share a download, and its fate.
		if c.r.Checksum == "" {
			c.r.Checksum = fmt.Sprintf("sha256:%064x", i+1)
		}
		w.registered(on, c.r)
	}
	for i, c := range cases {
		w.substep(c.what, func(w *world) {
			failed := w.untilCopy(on, ids[i], "to fail", func(found api.TemplateCopy) bool {
				if isReady(found) {
					w.Fatalf("copy %+v; want it never ready", found)
				}
				return isFailed(found)
			})
			w.blamed(failed, c.code, c.class, c.says...)
			if c.permanent != (failed.RetryAt == nil) {
				w.Errorf("next attempt at %v; want none: %v", failed.RetryAt, c.permanent)
			}
			if c.permanent && failed.Attempts != 1 {
				w.Errorf("%d attempts at what no attempt can help", failed.Attempts)
			}
		})
	}
	// Whatever was begun is gone, and nothing was published.
	for _, id := range ids {
		_, err := on.api.RemoveTemplate(w.ctx, id)
		w.must(err)
	}
	if left := append(w.files(on), w.hidden(on, harness.ImagesPath)...); len(left) != 0 {
		w.Errorf("left in the pool: %q", left)
	}
}

// Every way in which a server can fail to give an image has its own code, is
// blamed on the source and said in words, and leaves nothing in the pool.
func TestTemplateFaultsOfTheSource(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	w.agentWith(w.a, append([]string{w.trusts(w.a, o)}, quick...)...)
	image := w.picture("faults", w.Name())
	name, sum := w.sourced(o, image), w.checksum(image)
	w.must(os.WriteFile(o.File(name+".other"), bytes.Repeat([]byte{7}, int(w.size(image))), 0o600))
	html := "<!DOCTYPE html><html><title>Log in</title></html>"
	packed := pack(w, image)
	at := func(knob string) api.TemplateRequest {
		return api.TemplateRequest{URL: o.URL(knob, name)}
	}
	secure := func(kind harness.OriginTLS) api.TemplateRequest {
		return api.TemplateRequest{URL: o.SecureURL(kind, "plain", name)}
	}
	w.failing(w.a, []faulty{
		{what: "nobody listens", r: api.TemplateRequest{URL: "http://127.0.0.1:1/" + name}, code: "connection-refused", class: "source", says: []string{"refused", "127.0.0.1:1"}},
		{what: "404", r: at("status-404"), code: "http-status", class: "source", says: []string{"404"}},
		{what: "403", r: at("status-403"), code: "http-status", class: "source", says: []string{"403"}},
		{what: "500", r: at("status-500"), code: "http-status", class: "source", says: []string{"500"}},
		{what: "no credentials", r: at("token"), code: "http-status", class: "source", says: []string{"401"}},
		{what: "a page in place of the image", r: at("login"), code: "not-an-image", class: "source", says: []string{"HTML", "checksum"}},
		{what: "a page with the right checksum", r: api.TemplateRequest{URL: o.URL("plain", "page"), Checksum: w.text(o, "page", html)},
			code: "not-an-image", class: "policy", says: []string{"HTML"}, permanent: true},
		{what: "another checksum", r: api.TemplateRequest{URL: o.URL("plain", name), Checksum: anyChecksum}, code: "checksum", class: "source",
			says: []string{anyChecksum[7:], sum[7:]}, permanent: true},
		{what: "the name in the certificate", r: secure(harness.TLSWrongName), code: "tls", class: "source", says: []string{"images.example", "127.0.0.1"}},
		{what: "the authority of the certificate", r: secure(harness.TLSUnknown), code: "tls", class: "source", says: []string{"authority"}},
		{what: "a certificate of yesterday", r: secure(harness.TLSExpired), code: "tls", class: "source", says: []string{"expired"}},
		{what: "cut, with no ranges", r: at("cut-noranges"), code: "truncated", class: "source"},
		{what: "ranges that begin elsewhere", r: at("cut-start"), code: "protocol", class: "source", says: []string{"asked for bytes from", `Content-Range "bytes 0-`}},
		{what: "ranges of another length", r: at("cut-total"), code: "protocol", class: "source", says: []string{"Content-Range", "where the content has"}},
		{what: "ranges of another image", r: at("cut-etag"), code: "protocol", class: "source", says: []string{"asked for bytes from", "If-Range was"}},
		{what: "packed on the way", r: at("encoded"), code: "protocol", class: "source", says: []string{"gzip"}},
		{what: "a redirect to itself", r: at("loop"), code: "redirect", class: "policy", says: []string{"redirect"}},
		{what: "half of a packed image", r: api.TemplateRequest{URL: o.URL("plain", "half.gz"), Checksum: w.text(o, "half.gz", string(packed[:len(packed)/2]))},
			code: "packed", class: "source", says: []string{"gzip"}, permanent: true}, // its checksum is right
	})
}

// What this host does not want is refused without a byte from the forbidden
// place, whoever leads there.
func TestTemplateFaultsOfPolicy(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	w.agentWith(w.a, append([]string{"WHERRY_TEMPLATES_MAX_SIZE=96MiB", "WHERRY_TEMPLATES_MAX_VIRTUAL_SIZE=1GiB",
		"WHERRY_TEMPLATES_FILE_FOLDERS=" + harness.SharedPath, w.trusts(w.a, o)}, quick...)...)
	image := w.picture("policy", w.Name())
	name := w.sourced(o, image)
	listener, err := w.a.Listen("tcp", "[::1]:0")
	w.must(err)
	w.Cleanup(func() { listener.Close() })
	reached := make(chan net.Conn, 8)
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			reached <- conn
			conn.Close()
		}
	}()
	inside := "http://" + listener.Addr().String() + "/" + name
	url := func(u string) api.TemplateRequest { return api.TemplateRequest{URL: u} }
	to := func(u string) api.TemplateRequest { return url(o.URL("redirect", "x?to="+u)) }
	huge := w.unpackedTo(o, "huge.gz", 128*mib)
	w.exec(w.a, "qemu-img", "create", "-q", "-f", "qcow2", harness.SharedPath+"/wide.qcow2", "2G")
	for _, none := range []string{"", "//images.example/x", "images.example/x", "https://"} {
		_, err := w.a.api.RegisterTemplate(w.ctx, api.TemplateRequest{ID: w.unique("none"), URL: none, Checksum: anyChecksum, Format: "raw"}, "")
		if p := w.problem(err, "bad-request"); len(p.Fields) != 1 || p.Fields[0].Field != "url" {
			t.Errorf("%s; want %q refused as a URL", describe(p), none)
		}
	}
	w.failing(w.a, []faulty{
		{what: "ftp", r: url("ftp://images.example/x"), code: "scheme", class: "policy", says: []string{"ftp"}},
		{what: "a file of the host", r: url("file:///etc/passwd"), code: "file-folder", class: "policy", says: []string{"/etc/passwd"}},
		{what: "a file beside the folder", r: url("file://" + harness.SharedPath + "/../../etc/passwd"), code: "file-folder", class: "policy"},
		{what: "loopback", r: url(inside), code: "address", class: "policy", says: []string{"::1"}},
		{what: "a redirect to loopback", r: to(inside), code: "address", class: "policy", says: []string{"::1"}},
		{what: "the metadata of a cloud", r: url("http://169.254.169.254/latest"), code: "address", class: "policy", says: []string{"169.254.169.254"}},
		{what: "a redirect to the metadata of a cloud", r: to("http://169.254.169.254/latest"), code: "address", class: "policy", says: []string{"169.254.169.254"}},
		{what: "the same, as IPv6 has it", r: url("http://[::ffff:169.254.169.254]/latest"), code: "address", class: "policy", says: []string{"169.254.169.254"}},
		{what: "a private network", r: url("http://192.168.1.1/x"), code: "address", class: "policy", says: []string{"192.168.1.1"}},
		{what: "a redirect to a file", r: to("file:///etc/passwd"), code: "redirect", class: "policy"},
		{what: "a redirect out of TLS", r: url(o.SecureURL(harness.TLSGood, "redirect", "x?to="+o.URL("plain", name))), code: "redirect", class: "policy", says: []string{"http"}},
		{what: "more than is allowed, unpacked", r: api.TemplateRequest{URL: o.URL("plain", "huge.gz"), Checksum: huge, Format: "raw"}, code: "too-large", class: "policy", says: []string{"100663296"}},
		{what: "a disk larger than is allowed", r: api.TemplateRequest{URL: "file://" + harness.SharedPath + "/wide.qcow2",
			Checksum: w.checksum(w.seen(w.a, harness.SharedPath+"/wide.qcow2"))}, code: "image", class: "policy", says: []string{"2147483648"}, permanent: true},
	})
	select {
	case <-reached:
		t.Error("an address that is not allowed was connected to")
	default:
	}
	if asked := w.asked(o, name); len(asked) != 0 {
		t.Errorf("asked for %+v after a redirect out of TLS", asked)
	}
}

// A server that falls silent is given up after the idle limit, not before, and
// succeeds by itself once it goes on.
func TestTemplateSourceFallsSilent(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	o := w.origin(w.a, "127.0.0.1")
	image := w.noise("silent.raw", mib)
	id := w.unique("tpl")
	w.registered(w.a, api.TemplateRequest{ID: id, Format: "raw", URL: o.URL("plain", w.sourced(o, image)+"?rate=256k"), Checksum: w.checksum(image)})
	begun := w.untilCopy(w.a, id, "to progress", func(c api.TemplateCopy) bool { return c.BytesDone > 0 })
	if begun.State != api.CopyDownloading || begun.BytesTotal != mib || begun.Progress >= 100 {
		t.Errorf("copy %+v; want it downloading, of %d bytes", begun, mib)
	}
	w.must(o.Freeze())
	failed := w.untilCopy(w.a, id, "to fail", isFailed)
	w.blamed(failed, "idle", "source", "2s")
	if left := w.hidden(w.a, harness.ImagesPath); len(left) != 0 {
		t.Errorf("left in the pool: %q", left)
	}
	w.must(o.Thaw())
	w.readied(w.a, id, image)
}

// size is how long a file of this machine is.
func (w *world) size(file string) int64 {
	w.Helper()
	info, err := os.Stat(file)
	w.must(err)
	return info.Size()
}

// pack packs a file of this machine with gzip.
func pack(w *world, file string) []byte {
	w.Helper()
	data, err := os.ReadFile(file)
	w.must(err)
	var out bytes.Buffer
	packer := gzip.NewWriter(&out)
	_, err = packer.Write(data)
	w.must(err)
	w.must(packer.Close())
	return out.Bytes()
}

// unpackedTo serves zeros that unpack to that size, and gives the checksum of
// what is served.
func (w *world) unpackedTo(o *harness.Origin, name string, size int) string {
	w.Helper()
	var out strings.Builder
	packer := gzip.NewWriter(&out)
	zeros := make([]byte, mib)
	for range size / mib {
		_, err := packer.Write(zeros)
		w.must(err)
	}
	w.must(packer.Close())
	return w.text(o, name, out.String())
}
