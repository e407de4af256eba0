package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// picture is an image that templates are measured with, on the machine that runs the bench and at both hosts' origins.
type picture struct {
	name string
	data int64 // bytes that are no hole
	sum  string
}

// gallery serves the same images on both hosts, to the host itself and to the other one.
type gallery struct {
	size     int64
	pictures []picture
	origins  map[*harness.Host]*harness.Origin
}

// newGallery makes the images: one without a hole, and one of which an eighth is data.
func newGallery(ctx context.Context, lab *harness.Lab, folder string, size int64) (*gallery, error) {
	g := &gallery{size: size, origins: map[*harness.Host]*harness.Origin{}}
	for i, h := range lab.Hosts() {
		below := filepath.Join(folder, h.Name)
		o, err := h.Serve(ctx, below, fmt.Sprintf("10.77.0.%d", i+1))
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.origins[h] = o
	}
	first := g.origins[lab.A]
	for _, p := range []picture{{name: "dense", data: size}, {name: "sparse", data: size / 8}} {
		var err error
		if p.sum, err = draw(first.File(p.name), size, p.data); err != nil {
			return nil, errors.Join(err, g.close())
		}
		// The other origin serves the very same file.
		if err := os.Link(first.File(p.name), g.origins[lab.B].File(p.name)); err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.pictures = append(g.pictures, p)
	}
	return g, nil
}

func (g *gallery) close() error {
	var errs []error
	for _, o := range g.origins {
		errs = append(errs, o.Stop())
	}
	return errors.Join(errs...)
}

// extent is how much data lies between two holes: images are not in two pieces.
const extent = 4 << 20

// draw makes a raw image of random data, spread evenly, and gives its checksum.
func draw(path string, size, data int64) (string, error) {
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	source, piece := rand.NewChaCha8([32]byte{byte(data >> 20)}), make([]byte, extent)
	for at := int64(0); at < size; at += extent * (size / data) {
		if _, err := io.ReadFull(source, piece); err != nil {
			return "", err
		}
		if _, err := file.WriteAt(piece, at); err != nil {
			return "", err
		}
	}
	if err := file.Truncate(size); err != nil {
		return "", err
	}
	digest := sha256.New()
	if _, err := io.Copy(digest, io.NewSectionReader(file, 0, size)); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(digest.Sum(nil)), file.Sync()
}

// fetched is what it took to bring one image.
type fetched struct {
	wall time.Duration
	wire int64 // bytes received over the link
}

// wherryFetch has a host's agent bring an image, from request to ready, and takes it away again.
func wherryFetch(ctx context.Context, h *harness.Host, p picture, url, from string) (fetched, error) {
	agent, err := client.New("unix:"+h.Socket(), client.TLS{})
	if err != nil {
		return fetched{}, err
	}
	defer agent.Close()
	id := fmt.Sprintf("bench-%s-%d", p.name, time.Now().UnixNano())
	before, err := wire(ctx, h)
	if err != nil {
		return fetched{}, err
	}
	began := time.Now()
	op, err := agent.RegisterTemplate(ctx, api.TemplateRequest{ID: id, URL: url, Checksum: p.sum, Format: "raw", SyncFrom: from}, "")
	if err == nil {
		op, err = agent.WaitOperation(ctx, op.ID, func(api.Operation) {})
	}
	f := fetched{wall: time.Since(began)}
	if err == nil && op.Error != nil {
		err = op.Error
	}
	if err != nil {
		return f, err
	}
	after, err := wire(ctx, h)
	f.wire = after - before
	t, gone := agent.RemoveTemplate(ctx, id)
	if err = errors.Join(err, gone); err == nil && len(t.Copies) > 0 {
		err = fmt.Errorf("a copy of %q stays: %+v", id, t.Copies)
	}
	return f, errors.Join(err, settle(ctx, h))
}

// settle lets nothing of one run be written in the next one's time.
func settle(ctx context.Context, h *harness.Host) error {
	_, err := h.Exec(ctx, "sync")
	return err
}

// curlScript is what an administrator would write. With "sync" as $3 the file is on the disk when it ends, as it is when
// Wherry calls a template ready.
const curlScript = `
set -e
curl -fsS "$1" | tee "$2" | sha256sum
[ -z "$3" ] || sync "$2"`

func curlFetch(ctx context.Context, h *harness.Host, p picture, url string, synced bool) (fetched, error) {
	path := harness.ImagesPath + "/bench.raw"
	if _, err := h.Exec(ctx, "rm", "-f", path); err != nil {
		return fetched{}, err
	}
	began := time.Now()
	out, err := h.Exec(ctx, "bash", "-o", "pipefail", "-c", curlScript, "bash", url, path, map[bool]string{true: "sync"}[synced])
	f := fetched{wall: time.Since(began)}
	if err == nil && !strings.HasPrefix(out, p.sum[len("sha256:"):]) {
		err = fmt.Errorf("sha256sum says %q; want %s", out, p.sum)
	}
	if err != nil {
		return f, err
	}
	_, err = h.Exec(ctx, "rm", "-f", path)
	return f, errors.Join(err, settle(ctx, h))
}

// plainFetch carries an image over the link and keeps nothing of it: what the link gives.
func plainFetch(ctx context.Context, h *harness.Host, url string) (fetched, error) {
	before, err := wire(ctx, h)
	if err != nil {
		return fetched{}, err
	}
	began := time.Now()
	if _, err := h.Exec(ctx, "curl", "-fsS", "-o", "/dev/null", url); err != nil {
		return fetched{}, err
	}
	f := fetched{wall: time.Since(began)}
	after, err := wire(ctx, h)
	f.wire = after - before
	return f, err
}
