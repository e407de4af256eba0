//go:build lab

package e2e

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// Whatever a sound server does, the image arrives as it is, and the server is
// asked only for what is needed.
func TestTemplateDownloads(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	w.agentWith(w.a, append([]string{"WHERRY_TEMPLATES_FILE_FOLDERS=" + harness.SharedPath, w.trusts(w.a, o)}, quick...)...)
	image := w.picture("downloads", w.Name())
	secret := map[string]string{"Authorization": "Bearer secret"}
	var begun []download
	// Each is another image to the host: one that has the bytes already does
	// not ask for them again.
	add := func(what, knob string, r api.TemplateRequest, judge func(w *world, d download)) {
		file := w.variant(image, what)
		name := w.sourced(o, file)
		r.ID = w.unique(what)
		query := r.URL
		if r.URL = o.URL(knob, name+query); knob == "tls" {
			r.URL = o.SecureURL(harness.TLSGood, "plain", name)
		}
		if r.Checksum == "" {
			r.Checksum = w.checksum(file)
		} else {
			r.Checksum += hexSum(w, file, r.Checksum)
		}
		w.registered(w.a, r)
		begun = append(begun, download{what, r.ID, file, name, judge})
	}
	add("plain", "plain", api.TemplateRequest{}, func(w *world, d download) {
		asked := w.asked(o, d.name)
		if len(asked) != 1 || asked[0].Sent != w.size(o.File(d.name)) || asked[0].Encoding != "identity" || asked[0].Range != "" {
			w.Errorf("asked for %+v; want one request for the whole", asked)
		}
	})
	add("query", "plain", api.TemplateRequest{URL: "?a=1&b=%20c&rate=0&sig=x%2Fy%3D"}, func(w *world, d download) {
		if asked := w.asked(o, d.name); len(asked) != 1 || !strings.HasSuffix(asked[0].URI, "?a=1&b=%20c&rate=0&sig=x%2Fy%3D") {
			w.Errorf("asked for %+v; want the query as it was given", asked)
		}
		// A signature in a URL is a secret.
		log, err := w.a.AgentLog(w.ctx)
		w.must(err)
		if c := w.copyOf(w.a, d.id); strings.Contains(log+c.Origin, "sig=x") {
			w.Errorf("the query is in the log, or in %q", c.Origin)
		}
	})
	add("noranges", "noranges", api.TemplateRequest{}, nil)
	add("unsized", "unsized", api.TemplateRequest{}, nil)
	add("tls", "tls", api.TemplateRequest{}, nil)
	add("token", "token", api.TemplateRequest{Headers: secret}, nil)
	add("cut", "cut", api.TemplateRequest{URL: "?after=3m"}, func(w *world, d download) {
		resumed(w, w.asked(o, d.name), w.size(o.File(d.name)))
	})
	add("md5", "plain", api.TemplateRequest{Checksum: "md5:"}, nil)
	add("sha1", "plain", api.TemplateRequest{Checksum: "sha1:"}, nil)
	add("sha512", "plain", api.TemplateRequest{Checksum: "sha512:"}, nil)
	for _, d := range begun {
		w.substep(d.what, func(w *world) { d.arrives(w) })
	}

	w.substep("redirects, and credentials that do not follow", func(w *world) {
		file := w.variant(image, "redirected")
		name := w.sourced(o, file)
		id := w.unique("tpl")
		hop := o.URL("redirect", "x?to="+o.Elsewhere("plain", name))
		w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("redirect", "y?to="+hop), Checksum: w.checksum(file), Headers: secret})
		w.readied(w.a, id, file)
		all, err := o.Requests()
		w.must(err)
		for _, r := range all {
			follows := !strings.Contains(r.URI, "/plain/"+name)
			if about := strings.Contains(r.URI, name); about && (r.Authorization == secret["Authorization"]) != follows || r.Referer != "" {
				w.Errorf("request %+v: credentials belong to the first server alone", r)
			}
		}
	})
	w.substep("a server that is not ready yet", func(w *world) {
		file := w.variant(image, "later")
		name := w.sourced(o, file)
		id := w.unique("tpl")
		w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("later", name), Checksum: w.checksum(file)})
		failed := w.untilCopy(w.a, id, "to fail twice", func(c api.TemplateCopy) bool { return isFailed(c) && c.Attempts >= 2 })
		w.blamed(failed, "http-status", "source", "503")
		w.must(o.Put("open", nil))
		if c := w.readied(w.a, id, file); c.Attempts != failed.Attempts+1 {
			w.Errorf("copy %+v; want it to tell that it took one attempt more than %d", c, failed.Attempts)
		}
	})
	w.substep("a file of the host, where that is allowed", func(w *world) {
		file := w.variant(image, "file")
		w.must(exec.CommandContext(w.ctx, "cp", file, w.a.Shared()).Run())
		id := w.unique("tpl")
		w.registered(w.a, api.TemplateRequest{ID: id, URL: "file://" + harness.SharedPath + "/" + filepath.Base(file), Checksum: w.checksum(file)})
		w.readied(w.a, id, file)
	})
	for _, with := range []string{"gzip", "xz", "zstd"} {
		w.substep("packed with "+with, func(w *world) {
			file := w.variant(image, with)
			packed := w.packed(file, with)
			name := w.sourced(o, packed)
			id := w.unique("tpl")
			// The checksum is of what is served, the digest of what is kept.
			w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("plain", name), Checksum: w.checksum(packed)})
			w.readied(w.a, id, file)
			tpl, err := w.a.api.Template(w.ctx, id)
			w.must(err)
			if tpl.Digest != w.checksum(file) || tpl.Size != w.size(file) || tpl.VirtualSize != imageSize {
				w.Errorf("template %+v; want the digest and the sizes of the unpacked image", tpl)
			}
		})
	}
	w.substep("mirrors", func(w *world) {
		file := w.variant(image, "mirrors")
		name := w.sourced(o, file)
		w.text(o, "image.meta4", fmt.Sprintf(metalink, name, w.size(file), hexSum(w, file, "sha512:"), hexSum(w, file, "md5:"),
			o.URL("status-404", name), o.URL("plain", name)))
		id := w.unique("tpl")
		w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("plain", "image.meta4"), Checksum: w.checksum(file)})
		w.readied(w.a, id, file)
		if asked := w.asked(o, name); len(asked) != 2 || asked[0].Status != 404 || asked[1].Status != 200 {
			w.Errorf("asked for %+v; want the first mirror and then the second", asked)
		}
	})
	if all, err := o.Requests(); err != nil || len(all) < len(begun) {
		t.Errorf("%d requests, %v", len(all), err)
	} else {
		for _, r := range all {
			if r.Method != http.MethodGet || r.Encoding != "identity" {
				t.Errorf("request %+v; want GET, and nothing packed on the way", r)
			}
		}
	}
}

const metalink = `<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="%s"><size>%d</size>
<hash type="sha-512">%s</hash><hash type="md5">%s</hash>
<url priority="1">%s</url><url priority="2">%s</url></file></metalink>`

// download is a template on its way.
type download struct {
	what, id, file, name string
	judge                func(w *world, d download)
}

func (d download) arrives(w *world) {
	w.Helper()
	w.readied(w.a, d.id, d.file)
	if d.judge != nil {
		d.judge(w, d)
	}
}

// resumed wants requests for a content that is cut again and again to go on
// where it was cut, and only while it is still that content.
func resumed(w *world, asked []harness.OriginRequest, size int64) {
	w.Helper()
	if len(asked) < 3 || asked[0].Range != "" {
		w.Fatalf("asked for %+v; want the whole, and then what was left", asked)
	}
	var at, sent int64
	for i, r := range asked {
		sent += r.Sent
		var from int64
		if i == 0 {
			continue
		}
		if _, err := fmt.Sscanf(r.Range, "bytes=%d-", &from); err != nil || from <= at || r.Status != http.StatusPartialContent || !strings.HasPrefix(r.IfRange, `"`) {
			w.Errorf("request %d: %+v, after one from %d; want a range further on, if the ETag is the same", i, r, at)
		}
		at = from
	}
	// nginx has handed over a little more than arrived before it was cut.
	if sent < size || sent > size+int64(len(asked))*mib {
		w.Errorf("%d bytes were sent of %d; want none twice", sent, size)
	}
}

// variant gives an image with another label, and so with other bytes, and the
// same sizes.
func (w *world) variant(image, what string) string {
	w.Helper()
	out := filepath.Join(w.TempDir(), what+".qcow2")
	w.must(exec.CommandContext(w.ctx, "cp", "--sparse=always", image, out).Run())
	// Where the guest's label is does not matter: what is read is compared with what was served.
	if msg, err := exec.CommandContext(w.ctx, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -P %d %d 64k", len(what)+int(what[0]), imageSize-mib), out).CombinedOutput(); err != nil {
		w.Fatalf("changing an image: %v: %s", err, msg)
	}
	return out
}

// hexSum is a checksum of the algorithm "md5:", "sha1:" or "sha512:".
func hexSum(w *world, file, algorithm string) string {
	w.Helper()
	h := map[string]func() hash.Hash{"md5:": md5.New, "sha1:": sha1.New, "sha512:": sha512.New}[algorithm]()
	in, err := os.Open(file)
	w.must(err)
	defer in.Close()
	_, err = io.Copy(h, in)
	w.must(err)
	return hex.EncodeToString(h.Sum(nil))
}

// packed packs a file with a program of Debian's.
func (w *world) packed(file, with string) string {
	w.Helper()
	suffix := map[string]string{"gzip": ".gz", "xz": ".xz", "zstd": ".zst"}[with]
	out, err := os.Create(file + suffix)
	w.must(err)
	cmd := exec.CommandContext(w.ctx, with, "-1", "-q", "-c", file)
	cmd.Stdout = out
	w.must(errors.Join(cmd.Run(), out.Close()))
	return file + suffix
}

// However many ask for an image, it is downloaded once; those who come later
// see the progress of the first.
func TestTemplateDownloadedOnceForAll(t *testing.T) {
	w := begin(t)
	o := w.origin(w.a, "127.0.0.1")
	image := w.noise("once.raw", 8*mib)
	name := w.sourced(o, image)
	var ops []api.Operation
	for i := range 3 {
		ops = append(ops, w.registered(w.a, api.TemplateRequest{ID: fmt.Sprintf("%s-%d", w.unique("tpl"), i), Format: "raw",
			URL: o.URL("plain", name+"?rate=4m"), Checksum: w.checksum(image)}))
	}
	w.must(harness.Until(w.ctx, "the last to tell of progress", func(ctx context.Context) error {
		op, err := w.a.api.Operation(ctx, ops[2].ID)
		if err == nil && op.Progress.BytesDone == 0 {
			err = errors.New("no byte is done")
		}
		return err
	}))
	for _, op := range ops {
		w.run(w.a, op, nil)
	}
	for i := range 3 {
		w.readied(w.a, fmt.Sprintf("%s-%d", w.unique("tpl"), i), image)
	}
	if asked := w.asked(o, name); len(asked) != 1 {
		t.Errorf("asked for %+v; want one request", asked)
	}
	if files := w.files(w.a); len(files) != 1 {
		t.Errorf("files %q; want one that all share", files)
	}
}

// Where the environment names a proxy, images come through it, and peers do
// not.
func TestTemplateThroughAProxy(t *testing.T) {
	w := begin(t)
	var through atomic.Int64
	listener, err := w.a.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	proxy := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !r.URL.IsAbs() {
			http.Error(rw, "this is a proxy", http.StatusBadRequest)
			return
		}
		through.Add(1)
		proxied(w, w.a, rw, r)
	})}
	go proxy.Serve(listener)
	w.Cleanup(func() { proxy.Close() })
	at := "http://" + listener.Addr().String()
	w.agentWith(w.a, append([]string{"HTTP_PROXY=" + at, "HTTPS_PROXY=" + at}, quick...)...)
	o := w.origin(w.a, "10.77.0.1")
	image := w.picture("proxy", w.Name())
	id, peers := w.unique("tpl"), w.unique("peers")
	w.registered(w.a, api.TemplateRequest{ID: id, URL: o.URL("plain", w.sourced(o, image)), Checksum: w.checksum(image)})
	w.readied(w.a, id, image)
	if through.Load() != 1 {
		t.Errorf("%d requests went through the proxy; want the one", through.Load())
	}
	other := w.picture("peers", w.Name()+"2")
	w.template(w.b, peers, other, false)
	w.must(o.Stop())
	w.registered(w.a, api.TemplateRequest{ID: peers, URL: o.URL("plain", "gone"), Checksum: w.checksum(other), SyncFrom: w.b.URL()})
	w.readied(w.a, peers, other)
	if through.Load() != 1 {
		t.Errorf("%d requests went through the proxy; want a peer to be asked past it", through.Load())
	}
}

// proxied answers a proxy's client with what a server in a host's network says.
func proxied(w *world, on *side, rw http.ResponseWriter, r *http.Request) {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) { return on.Dial(network, address) }}
	r.RequestURI = ""
	resp, err := transport.RoundTrip(r)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		rw.Header()[name] = values
	}
	rw.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(rw, resp.Body); err != nil {
		w.Logf("the proxy: %v", err)
	}
}
