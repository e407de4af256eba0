package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

// authority issues certificates of hosts that call themselves 127.0.0.1.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	must(t, err)
	a.path = a.write("CERTIFICATE", der)
	return a
}

func (a *authority) write(kind string, der []byte) string {
	f, err := os.CreateTemp(a.t.TempDir(), "*.pem")
	must(a.t, err)
	must(a.t, errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close()))
	return f.Name()
}

func (a *authority) issue() config.TLS {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "host", OrganizationalUnit: []string{"wherry-peer"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	must(a.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	return config.TLS{CA: a.path, Cert: a.write("CERTIFICATE", der), Key: a.write("PRIVATE KEY", private)}
}

// sender is another host's agent, as far as templates go.
type sender struct {
	http.Templates // nothing else is asked for
	template       api.Template
	path           string
	wait           <-chan struct{} // before it answers, where it is set
	sent           atomic.Int64

	mu    sync.Mutex
	asked []string
}

func (s *sender) Open(ctx context.Context, id string) (*os.File, api.Template, error) {
	s.mu.Lock()
	s.asked = append(s.asked, id)
	s.mu.Unlock()
	if s.wait != nil {
		select {
		case <-s.wait:
		case <-ctx.Done():
			return nil, api.Template{}, ctx.Err()
		}
	}
	if id != s.template.ID && id != s.template.Digest {
		return nil, api.Template{}, api.NewProblem("not-found", "no template here is %s", id)
	}
	f, err := os.Open(s.path)
	return f, s.template, err
}

// serve serves over the peers' TLS and gives the address.
func (s *sender) serve(t *testing.T, files config.TLS, senders int) string {
	t.Helper()
	server, err := http.New(http.Options{
		Instances: struct{ http.Instances }{}, Actions: struct{ http.InstanceActions }{}, Migrations: struct{ http.Migrations }{},
		Incoming: struct{ http.Incoming }{}, Operations: struct{ http.Operations }{}, Targets: struct{ http.Targets }{},
		Rebuilds: struct{ http.Rebuilds }{}, Shutdowns: struct{ http.Shutdowns }{}, Leftovers: struct{ http.Leftovers }{},
		Hosts: readyHost{}, Templates: s, Senders: senders, Sent: func(n int64) { s.sent.Add(n) },
	})
	must(t, err)
	c := config.Default()
	c.TLS, c.Listen = files, config.Listen{TCP: "127.0.0.1:0"}
	must(t, server.Listen((&daemon{config: c}).listeners()))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, errors.Join(<-done, server.Close()))
	})
	return server.Addrs()[0].String()
}

type readyHost struct{ http.Hosts }

func (readyHost) Ready(context.Context) error { return nil }

// sparse makes an image of data and holes in turn, and gives its bytes and how
// many of them are data.
func sparse(t *testing.T) (s *sender, content []byte, data int) {
	t.Helper()
	const size, run = 64 << 20, 256 << 10
	content = make([]byte, size)
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	must(t, err)
	for at := 0; at < size; at += 8 << 20 {
		_, err := rand.Read(content[at : at+run])
		must(t, err)
		_, err = f.WriteAt(content[at:at+run], int64(at))
		must(t, err)
		data += run
	}
	must(t, errors.Join(f.Truncate(size), f.Close()))
	sum := sha256.Sum256(content)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	return &sender{path: path, template: api.Template{ID: "rocky9", Format: "raw", Checksum: digest, Digest: digest}}, content, data
}

// receiver is this host: the daemon's own client and origins.
type receiver struct {
	peers    *peers
	siblings *templates.Peers
	received atomic.Int64
}

func newReceiver(t *testing.T, files config.TLS, idle time.Duration, urls ...string) *receiver {
	t.Helper()
	r := &receiver{}
	c := config.Default()
	c.TLS, c.Templates.IdleTimeout, c.Peers = files, idle, urls
	r.peers = newPeers(c, quiet, func(n int64) { r.received.Add(n) })
	t.Cleanup(r.peers.close)
	r.siblings = (&daemon{config: c, log: quiet, peers: r.peers}).siblings()
	return r
}

func (r *receiver) origins(t *testing.T, of api.Template) []source.Origin {
	return r.siblings.Origins(t.Context(), template.Template{ID: of.ID, Format: of.Format, Checksum: of.Checksum, Digest: of.Digest})
}

// cutter hands connections on to an address and cuts each but the last after
// so many bytes of answer.
func cutter(t *testing.T, address string, after ...int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for i := 0; ; i++ {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", address)
			if err != nil {
				t.Errorf("dial: %v", err)
				_ = from.Close()
				return
			}
			end := sync.OnceFunc(func() { _, _ = from.Close(), to.Close() })
			wg.Go(func() { defer end(); _, _ = io.Copy(to, from) })
			wg.Go(func() {
				defer end()
				if i < len(after) {
					_, _ = io.CopyN(from, to, after[i])
				} else {
					_, _ = io.Copy(from, to)
				}
			})
		}
	})
	return "https://" + l.Addr().String()
}

func at(address string) string { return "https://" + address }

// An image comes whole though the connection is cut twice: each goes on where
// the last one stopped, and nothing but data travels.
func TestContentIsGoneOnWith(t *testing.T) {
	ca := newAuthority(t)
	s, want, data := sparse(t)
	url := cutter(t, s.serve(t, ca.issue(), 0), 600<<10, 900<<10)
	r := newReceiver(t, ca.issue(), time.Minute, url)
	o := r.origins(t, s.template)[0]
	if o.Name() != "peer "+url {
		t.Errorf("origin %q", o.Name())
	}
	in, err := source.NewReader(t.Context(), o, source.At{}, source.ReaderOptions{Pause: func(context.Context, time.Duration) error { return nil }})
	must(t, err)
	got, err := io.ReadAll(in)
	must(t, errors.Join(err, in.Close()))
	if !bytes.Equal(got, want) {
		t.Errorf("%d other bytes", len(got))
	}
	if strings.Join(s.asked, " ") != strings.Repeat(s.template.Digest+" ", 2)+s.template.Digest {
		t.Errorf("asked for %q; want the digest, three times", s.asked)
	}
	n := int(r.received.Load())
	if n < data || n > data+64<<10 || in.Travelled() != int64(n) {
		t.Errorf("%d bytes came for %d of data, %d by the reader's count", n, data, in.Travelled())
	}
	// The end of an allocation may be a hole's, in any file system's block.
	if taken := in.Allocated(); taken < int64(data) || taken > int64(data)+1<<20 {
		t.Errorf("the peer's file takes %d bytes for %d of data", taken, data)
	}
}

// What an earlier run of the agent has is not asked for again.
func TestContentIsTakenUp(t *testing.T) {
	ca := newAuthority(t)
	s, want, data := sparse(t)
	r := newReceiver(t, ca.issue(), time.Minute, at(s.serve(t, ca.issue(), 0)))
	const offset = 32 << 20
	got, err := r.origins(t, s.template)[0].Open(t.Context(), source.At{Offset: offset, Validator: source.Validator{ETag: `"` + s.template.Digest + `"`, Total: int64(len(want))}})
	must(t, err)
	b, err := io.ReadAll(got)
	must(t, errors.Join(err, got.Close()))
	if got.Offset != offset || got.Total != int64(len(want)) || !bytes.Equal(b, want[offset:]) {
		t.Errorf("%d bytes from %d of %d", len(b), got.Offset, got.Total)
	}
	if n := int(s.sent.Load()); n < data/2 || n > data/2+64<<10 {
		t.Errorf("%d bytes sent for the half of %d", n, data)
	}
}

// A full sender is passed over for a free one.
func TestContentFromWhoIsFree(t *testing.T) {
	ca := newAuthority(t)
	full, _, _ := sparse(t)
	want := bytes.Repeat([]byte("data"), 8<<20) // more than a connection holds
	must(t, os.WriteFile(full.path, want, 0o600))
	free := &sender{path: full.path, template: full.template}
	urls := []string{at(full.serve(t, ca.issue(), 1)), at(free.serve(t, ca.issue(), 1))}
	r := newReceiver(t, ca.issue(), time.Minute, urls...)
	held, err := r.origins(t, full.template)[0].Open(t.Context(), source.At{})
	must(t, err)
	defer held.Close()
	_, err = io.ReadFull(held, make([]byte, 1))
	must(t, err)
	all := r.origins(t, full.template)
	if all[0].Name() != "peer "+urls[1] || all[1].Name() != "peer "+urls[0] {
		t.Fatalf("order %s, %s", all[0].Name(), all[1].Name())
	}
	got, err := all[0].Open(t.Context(), source.At{})
	must(t, err)
	b, err := io.ReadAll(got)
	must(t, errors.Join(err, got.Close()))
	if !bytes.Equal(b, want) {
		t.Error("other bytes")
	}
}

// Why there is no content, as a fault that does not blame this host.
func TestContentFaults(t *testing.T) {
	ca := newAuthority(t)
	s, _, _ := sparse(t)
	good := at(s.serve(t, ca.issue(), 0))
	mute := &sender{wait: make(chan struct{})}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	other := s.template
	other.Digest, other.Checksum = "sha256:"+strings.Repeat("0", 64), "sha256:"+strings.Repeat("0", 64)
	for _, row := range []struct {
		name, url, code string
		of              api.Template
		idle            time.Duration
	}{
		{"nobody there", at(closed.Addr().String()), fault.ConnectionRefused, s.template, time.Minute},
		{"a stranger", at((&sender{}).serve(t, newAuthority(t).issue(), 0)), fault.TLS, s.template, time.Minute},
		{"no answer", at(mute.serve(t, ca.issue(), 0)), fault.Idle, s.template, 50 * time.Millisecond},
		{"another image under the id", good, fault.Peer, other, time.Minute},
		{"no such template", good, fault.Peer, api.Template{ID: "none"}, time.Minute},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newReceiver(t, ca.issue(), row.idle, row.url)
			_, err := r.origins(t, row.of)[0].Open(t.Context(), source.At{})
			f, ok := errors.AsType[*fault.Fault](err)
			if !ok || f.Code != row.code || f.Class != fault.Source || f.Permanent || fault.Message(f) == "" {
				t.Errorf("got %v: %+v", err, f)
			}
		})
	}
}

// A stream that falls silent underway is given up; what came of it counts.
func TestContentThatStops(t *testing.T) {
	ca := newAuthority(t)
	s, want, _ := sparse(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := s.serve(t, ca.issue(), 0)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() {
		defer func() { _ = l.Close() }()
		from, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = from.Close() }()
		to, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer func() { _ = to.Close() }()
		wg.Go(func() { _, _ = io.CopyN(from, to, 600<<10) }) // and then nothing
		_, _ = io.Copy(to, from)                             // until the receiver hangs up
	})
	r := newReceiver(t, ca.issue(), 200*time.Millisecond, at(l.Addr().String()))
	got, err := r.origins(t, s.template)[0].Open(t.Context(), source.At{})
	must(t, err)
	defer got.Close()
	b, err := io.ReadAll(got)
	if f := fault.Of(err); f == nil || f.Code != fault.Idle || !strings.Contains(f.Error(), "no data") {
		t.Errorf("ends with %v", err)
	}
	if len(b) == 0 || !bytes.Equal(b, want[:len(b)]) {
		t.Errorf("%d bytes came before", len(b))
	}
}
