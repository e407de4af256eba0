package templates_test

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/http/extents"
	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/partial"
)

// BenchmarkSync tells where the time of a sync goes: an image of 2 GiB with 256
// MiB of data over loopback, as fast as it gives and held to 1 Gbit/s. What it
// takes at least is the longer of "receive" and "sum". The bytes are on the
// disk at the end of "fill".
//
//	go test -run '^$' -bench Sync -benchtime 3x ./agent/templates
func BenchmarkSync(b *testing.B) {
	const size, data, piece = 2 << 30, 256 << 20, 4 << 20
	for _, image := range []struct {
		name string
		at   func(n int64) int64 // of the piece of data of that number
	}{
		{"spread", func(n int64) int64 { return n * piece * (size / data) }},
		{"back", func(n int64) int64 { return size - data + n*piece }},
	} {
		path := filepath.Join(b.TempDir(), image.name)
		file, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		content := make([]byte, piece)
		_, _ = rand.NewChaCha8([32]byte{}).Read(content) // never fails
		for n := range int64(data / piece) {
			if _, err := file.WriteAt(content, image.at(n)); err != nil {
				b.Fatal(err)
			}
		}
		if err := file.Truncate(size); err != nil {
			b.Fatal(err)
		}
		b.Run(image.name+"/sum", func(b *testing.B) {
			for b.Loop() {
				h := sha256.New()
				for range size / int64(len(content)) {
					h.Write(content)
				}
			}
		})
		for _, link := range []struct {
			name string
			rate rate.Limit // bytes per second
		}{{"loopback", rate.Inf}, {"1gbit", 125e6}} {
			peer := sends(b, path, link.rate)
			for _, way := range []struct {
				name string
				run  func(io.Reader) error
			}{
				{"receive", func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }},
				{"fill", func(r io.Reader) error { return fills(b, r, size) }},
			} {
				b.Run(image.name+"/"+link.name+"/"+way.name, func(b *testing.B) {
					began, kept := time.Now(), time.Duration(0)
					for b.Loop() {
						c, err := peer.TemplateContent(b.Context(), client.ContentRequest{ID: "x"})
						if err == nil {
							in := keeper{Reader: c}
							err = way.run(&in)
							kept += in.kept
							_ = c.Close() // it was only read
						}
						if err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(data/1e6*float64(b.N)/time.Since(began).Seconds(), "MB-data/s")
					b.ReportMetric(float64(kept.Milliseconds())/float64(b.N), "ms-kept-waiting/op")
				})
			}
		}
		if err := file.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// keeper adds up for how long nobody reads while there is more to come.
type keeper struct {
	io.Reader
	left time.Time
	kept time.Duration
}

func (k *keeper) Read(p []byte) (int, error) {
	if !k.left.IsZero() {
		k.kept += time.Since(k.left)
	}
	n, err := k.Reader.Read(p)
	k.left = time.Now()
	return n, err
}

// fills writes what comes as an attempt does, up to the disk.
func fills(b *testing.B, r io.Reader, size int64) error {
	p, err := partial.Make(filepath.Join(b.TempDir(), strconv.FormatInt(rand.Int64(), 36)))
	if err != nil {
		return err
	}
	defer func() { p.Close(); _ = partial.Remove(p.Path(), p.Inode()) }() // the folder goes with the test
	if err := p.Begin(digest.For()); err != nil {
		return err
	}
	if err := p.Fill(b.Context(), r, partial.Fill{Key: partial.Key{Want: "x"}, Limit: size}); err != nil {
		return err
	}
	return p.Image().Sync()
}

// sends serves a file as extents on a link of so many bytes per second.
func sends(b *testing.B, path string, limit rate.Limit) *client.Client {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		file, err := os.Open(path)
		if err == nil {
			defer func() { _ = file.Close() }() // it was only read
			w.Header().Set("Content-Type", extents.MediaType)
			err = extents.Encode(w, file, 0)
		}
		if err != nil {
			b.Error(err)
		}
	}))
	if limit != rate.Inf {
		s.Listener = slowListener{s.Listener, rate.NewLimiter(limit, 64<<10)}
	}
	s.Start()
	b.Cleanup(s.Close)
	c, err := client.New(s.URL, client.TLS{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// slowListener holds all that is sent by its connections to a rate.
type slowListener struct {
	net.Listener
	limiter *rate.Limiter
}

func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return slowConn{c, l.limiter}, err
}

type slowConn struct {
	net.Conn
	limiter *rate.Limiter
}

func (c slowConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		k := min(len(p), c.limiter.Burst())
		if err = c.limiter.WaitN(context.Background(), k); err == nil {
			k, err = c.Conn.Write(p[:k])
			n, p = n+k, p[k:]
		}
	}
	return n, err
}
