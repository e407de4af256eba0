//go:build lab

package harness

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const originBytes = 3 << 20

// fixture is an origin on this machine's loopback that serves the file "image".
func fixture(t *testing.T) (*Origin, []byte) {
	t.Helper()
	o, err := startOrigin(t.Context(), t.TempDir(), "127.0.0.1", net.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Stop(); err != nil {
			t.Error(err)
		}
	})
	data := make([]byte, originBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // it never fails
	if err := o.Put("image", data); err != nil {
		t.Fatal(err)
	}
	return o, data
}

// answer is what a server said, whether or not it came to the end of it.
type answer struct {
	status int
	length int64 // as told
	header http.Header
	body   []byte
}

// ask sends a GET that follows no redirect; headers are pairs.
func ask(t *testing.T, client *http.Client, url string, headers ...string) (answer, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for h := range slices.Chunk(headers, 2) {
		r.Header.Set(h[0], h[1])
	}
	resp, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.ContentLength, resp.Header, body}, err
}

func plainClient() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestOriginServesWholeFilesAndRanges(t *testing.T) {
	o, data := fixture(t)
	client := plainClient()
	for _, c := range []struct {
		knob    string
		header  []string
		status  int
		from    int
		length  int64
		headers map[string]string
	}{
		{knob: "plain", status: 200, length: originBytes},
		{knob: "plain", header: []string{"Range", "bytes=1000-"}, status: 206, from: 1000, length: originBytes - 1000,
			headers: map[string]string{"Content-Range": "bytes 1000-3145727/3145728"}},
		{knob: "plain", header: []string{"Range", "bytes=1000-", "If-Range", `"other"`}, status: 200, length: originBytes},
		{knob: "noranges", header: []string{"Range", "bytes=1000-"}, status: 200, length: originBytes},
		{knob: "unsized", status: 200, length: -1},
		{knob: "encoded", status: 200, length: originBytes, headers: map[string]string{"Content-Encoding": "gzip"}},
		{knob: "token", header: []string{"Authorization", "Bearer secret"}, status: 200, length: originBytes},
	} {
		t.Run(c.knob+strings.Join(c.header, " "), func(t *testing.T) {
			resp, err := ask(t, client, o.URL(c.knob, "image"), c.header...)
			if err != nil {
				t.Fatal(err)
			}
			if resp.status != c.status || resp.length != c.length || !bytes.Equal(resp.body, data[c.from:]) {
				t.Errorf("status %d, length %d, %d bytes; want %d, %d and the file from %d on", resp.status, resp.length, len(resp.body), c.status, c.length, c.from)
			}
			for name, want := range c.headers {
				if got := resp.header.Get(name); got != want {
					t.Errorf("%s: %q; want %q", name, got, want)
				}
			}
		})
	}
}

func TestOriginCutsAndLies(t *testing.T) {
	o, data := fixture(t)
	if err := o.Put("image.other", bytes.Repeat([]byte{7}, originBytes)); err != nil {
		t.Fatal(err)
	}
	client := plainClient()
	for _, c := range []struct {
		knob    string
		cut     bool // also what is asked for with a range
		status  int
		says    string // Content-Range
		etag    string
		content byte // of the range; 0 = the file's
	}{
		{knob: "cut", cut: true, status: 206, says: "bytes 2000000-3145727/3145728"},
		{knob: "cut-noranges", cut: true, status: 200},
		{knob: "cut-start", status: 206, says: "bytes 0-3145727/3145728"},
		{knob: "cut-total", status: 206, says: "bytes 2000000-3145727/987654321"},
		{knob: "cut-other", status: 206, says: "bytes 2000000-3145727/3145728", etag: `"same"`, content: 7},
		{knob: "cut-etag", status: 206, says: "bytes 2000000-3145727/3145728", etag: `"next"`},
	} {
		t.Run(c.knob, func(t *testing.T) {
			t.Parallel()
			url := o.URL(c.knob, "image?after=1m")
			first, err := ask(t, client, url)
			if !errors.Is(err, io.ErrUnexpectedEOF) || first.length != originBytes || len(first.body) < 1<<20 || len(first.body) > 2<<20 || !bytes.Equal(first.body, data[:len(first.body)]) {
				t.Fatalf("%d of %d bytes, %v; want the file cut after about 1 MiB", len(first.body), first.length, err)
			}
			next, err := ask(t, client, url, "Range", "bytes=2000000-", "If-Range", first.header.Get("ETag"))
			if errors.Is(err, io.ErrUnexpectedEOF) != c.cut || next.status != c.status || next.header.Get("Content-Range") != c.says {
				t.Fatalf("%v, status %d, Content-Range %q; want cut %v, %d, %q", err, next.status, next.header.Get("Content-Range"), c.cut, c.status, c.says)
			}
			if etag := next.header.Get("ETag"); c.etag != "" && etag != c.etag || etag == "" {
				t.Errorf("ETag %q; want %q", etag, c.etag)
			}
			want := data[2000000:]
			if c.status == 200 {
				want = data
			}
			if c.content != 0 {
				want = bytes.Repeat([]byte{c.content}, len(want))
			}
			if !bytes.Equal(next.body, want[:len(next.body)]) || !c.cut && len(next.body) != len(want) {
				t.Errorf("%d bytes that are not those wanted", len(next.body))
			}
		})
	}
}

func TestOriginAnswersWithoutAFile(t *testing.T) {
	o, data := fixture(t)
	client := plainClient()
	location := "http://169.254.169.254/latest"
	for path, status := range map[string]int{
		"status-404/image": 404, "status-403/image": 403, "status-500/image": 500, "token/image": 401, "later/image": 503,
		"plain/absent": 404, "redirect/x?to=" + location: 302, "loop/x": 302, "login/image": 200,
	} {
		knob, name, _ := strings.Cut(path, "/")
		resp, err := ask(t, client, o.URL(knob, name))
		if err != nil || resp.status != status {
			t.Errorf("%s: %v, %v; want %d", path, resp, err, status)
			continue
		}
		if to := resp.header.Get("Location"); strings.HasPrefix(path, "redirect") && to != location {
			t.Errorf("redirected to %q; want %q", to, location)
		}
		if path == "login/image" && (!bytes.Contains(resp.body, []byte("<html>")) || resp.header.Get("Content-Type") != "text/html") {
			t.Errorf("login: %q as %q", resp.body, resp.header.Get("Content-Type"))
		}
	}
	if err := o.Put("open", nil); err != nil {
		t.Fatal(err)
	}
	if resp, err := ask(t, client, o.URL("later", "image")); err != nil || resp.status != 200 || !bytes.Equal(resp.body, data) {
		t.Errorf("later, once open: %v, %v", resp, err)
	}
	head, err := http.NewRequestWithContext(t.Context(), http.MethodHead, o.URL("plain", "image"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(head)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 405 {
		t.Errorf("HEAD: status %d; want 405", resp.StatusCode)
	}
}

func TestOriginTLS(t *testing.T) {
	o, data := fixture(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(o.CA())
	client := plainClient()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	if got, err := ask(t, client, o.SecureURL(TLSGood, "plain", "image")); err != nil || !bytes.Equal(got.body, data) {
		t.Errorf("good: %v", err)
	}
	_, err := ask(t, client, o.SecureURL(TLSWrongName, "plain", "image"))
	if _, is := errors.AsType[x509.HostnameError](err); !is {
		t.Errorf("wrong name: %v", err)
	}
	_, err = ask(t, client, o.SecureURL(TLSUnknown, "plain", "image"))
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); !is {
		t.Errorf("unknown authority: %v", err)
	}
	_, err = ask(t, client, o.SecureURL(TLSExpired, "plain", "image"))
	if invalid, is := errors.AsType[x509.CertificateInvalidError](err); !is || invalid.Reason != x509.Expired {
		t.Errorf("expired: %v", err)
	}
}

func TestOriginStopsFreezesAndKeepsALog(t *testing.T) {
	o, data := fixture(t)
	client := plainClient()
	if _, err := ask(t, client, o.URL("plain", "image?rate=100m&token=a%20b"), "Range", "bytes=5-", "If-Range", `"x"`, "Accept-Encoding", "identity"); err != nil {
		t.Fatal(err)
	}
	if err := o.Freeze(); err != nil {
		t.Fatal(err)
	}
	brief := plainClient()
	brief.Timeout = 200 * time.Millisecond
	_, err := ask(t, brief, o.URL("plain", "image"))
	if silent, is := errors.AsType[net.Error](err); !is || !silent.Timeout() {
		t.Errorf("frozen: %v; want silence", err)
	}
	if err := o.Thaw(); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, client, o.Elsewhere("plain", "image")); err != nil || !bytes.Equal(got.body, data) {
		t.Errorf("thawed: %v", err)
	}
	if err := o.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, client, o.URL("plain", "image")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stopped: %v; want a refused connection", err)
	}
	if err := o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, client, o.URL("plain", "image")); err != nil || !bytes.Equal(got.body, data) {
		t.Errorf("started again: %v", err)
	}
	requests, err := o.Requests()
	if err != nil || len(requests) < 3 {
		t.Fatalf("%+v, %v; want three requests at least", requests, err)
	}
	first, last := requests[0], requests[len(requests)-1]
	first.At = 0
	want := OriginRequest{Port: strconv.Itoa(o.ports.Plain), Method: "GET", URI: "/plain/image?rate=100m&token=a%20b", Status: 200, Sent: originBytes, Finished: "OK",
		Range: "bytes=5-", IfRange: `"x"`, Encoding: "identity"}
	if first != want {
		t.Errorf("first request %+v; want %+v", first, want)
	}
	if last.Status != 200 || last.Sent != originBytes {
		t.Errorf("last request %+v", last)
	}
}

// The server writes nothing outside its folder.
func TestOriginKeepsToItsFolder(t *testing.T) {
	o, _ := fixture(t)
	client := plainClient()
	if _, err := ask(t, client, o.URL("cut", "image")); err == nil {
		t.Error("the answer was not cut")
	}
	open, err := os.ReadDir("/proc/" + strconv.Itoa(o.server.Process.Pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		file, err := os.Readlink("/proc/" + strconv.Itoa(o.server.Process.Pid) + "/fd/" + fd.Name())
		if err == nil && strings.HasPrefix(file, "/") && !strings.HasPrefix(file, o.folder) && file != os.DevNull {
			t.Errorf("nginx has %s open", file)
		}
	}
}
