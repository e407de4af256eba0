package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
	"github.com/wherry-kvm/wherry/tests/harness"
	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

const (
	mib = 1 << 20

	// Small, for they are made, copied and verified for every seed.
	templateSize = 32 * mib
	templateData = 4 * mib
	diskSize     = 64 * mib
	aloneData    = 8 * mib
	rawSize      = 32 * mib

	// poolSize is that of the pool that can be filled.
	poolSize = 320 * mib

	// libvirtAddress is where a host's libvirt listens for the other's.
	libvirtAddress = "127.0.0.1:16509"

	setUpTime = 5 * time.Minute
)

// agentSettings make the agent's longest waits short: who is gone is known to be gone for good sooner. On a busy machine
// a QEMU takes ten seconds to come up at the destination, in which no byte moves.
var agentSettings = []string{"WHERRY_MIGRATION_LEASE=10s", "WHERRY_MIGRATION_STALL_TIMEOUT=15s"}

// settings are those of a host's agent: it has other hosts call its libvirt through the gate.
func (h *host) settings() []string {
	return append(slices.Clone(agentSettings), fmt.Sprintf("WHERRY_MIGRATION_LIBVIRT_URI=qemu+tcp://%s:%s/system", h.Hostname(), h.gate.port()))
}

// rig is a lab of its own with the templates and pools that every seed finds.
type rig struct {
	lab    *harness.Lab
	a, b   *host
	folder string // of this machine, with the images that are served
}

// host is one of the two, as a seed sees it.
type host struct {
	*harness.Host
	api       *client.Client
	servers   []*http.Server
	gate      *gate
	templates map[schedule.Stands]string // the path of the copy here
	first     vitals                     // of the agent, when it first had nothing to do
	mounts    []string                   // likewise, of the host
}

func (r *rig) hosts() []*host { return []*host{r.a, r.b} }

func (r *rig) host(name string) *host {
	if name == "a" {
		return r.a
	}
	return r.b
}

func (r *rig) other(h *host) *host {
	if h == r.a {
		return r.b
	}
	return r.a
}

// newRig brings up fresh hosts, whose state is in that folder.
func newRig(ctx context.Context, state string) (*rig, error) {
	ctx, cancel := context.WithTimeout(ctx, setUpTime)
	defer cancel()
	if err := harness.DownIn(ctx, state); err != nil {
		return nil, err
	}
	lab, err := harness.ConnectIn(ctx, state)
	if err != nil {
		return nil, err
	}
	r := &rig{lab: lab}
	if r.folder, err = os.MkdirTemp("", "chaos"); err != nil {
		return nil, err
	}
	if err := errors.Join(r.images(ctx), r.connect(ctx)); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) close() {
	for _, h := range r.hosts() {
		if h == nil {
			continue
		}
		for _, s := range h.servers {
			_ = s.Close() // it ends with the lab in any case
		}
		if h.gate != nil {
			h.gate.close()
		}
		h.api.Close()
	}
	_ = os.RemoveAll(r.folder) // in the machine's own folder for what is temporary
}

// images makes what templates are made from, and what disks that stand alone hold.
func (r *rig) images(ctx context.Context) error {
	for _, i := range []struct {
		name       string
		size, data int64
	}{{"linked", templateSize, templateData}, {"direct", templateSize, templateData}, {"lone-a", templateSize, templateData},
		{"lone-b", templateSize, templateData}, {"alone", diskSize, aloneData}, {"raw", rawSize, aloneData}} {
		raw := filepath.Join(r.folder, i.name+".raw")
		if err := image.Make(raw, i.name, "chaos", i.size, i.data); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, filepath.Join(r.folder, i.name+".qcow2"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("making an image: %w: %s", err, out)
		}
	}
	return nil
}

func (r *rig) connect(ctx context.Context) error {
	for _, h := range r.lab.Hosts() {
		c, err := client.New("unix:"+h.Socket(), client.TLS{})
		if err != nil {
			return err
		}
		side := &host{Host: h, api: c, templates: map[schedule.Stands]string{}}
		if h == r.lab.A {
			r.a = side
		} else {
			r.b = side
		}
	}
	for _, h := range r.hosts() {
		if err := r.furnish(ctx, h); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	for _, h := range r.hosts() {
		f, err := h.facts(ctx)
		if err != nil {
			return err
		}
		h.mounts = f.mounts
		if h.first, err = h.vitals(ctx); err != nil {
			return err
		}
	}
	return nil
}

// furnish gives a host its pool, its templates, and the images of disks that stand alone.
func (r *rig) furnish(ctx context.Context, h *host) error {
	listener, err := h.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	h.gate = newGate(listener, func() (net.Conn, error) { return h.Dial("tcp", libvirtAddress) })
	if err := h.Agent(ctx, "restart", h.settings()...); err != nil {
		return err
	}
	if _, err := h.FileSystem(ctx, schedule.SmallPool, "ext4", poolSize); err != nil {
		return err
	}
	for stands, id := range map[schedule.Stands]string{schedule.Linked: "linked", schedule.Direct: "direct", schedule.Lone: "lone-" + h.Name} {
		path, err := r.template(ctx, h, id, stands == schedule.Direct)
		if err != nil {
			return fmt.Errorf("template %q: %w", id, err)
		}
		h.templates[stands] = path
	}
	h.templates[schedule.Full] = h.templates[schedule.Linked]
	for _, file := range []string{"alone.qcow2", "raw.raw"} {
		if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", filepath.Join(r.folder, file), filepath.Dir(h.Socket())).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// template has the host's agent download an image, and gives its path. It is served for as long as the rig is there: a
// copy that gets lost is brought again.
func (r *rig) template(ctx context.Context, h *host, id string, direct bool) (string, error) {
	listener, err := h.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.FileServer(http.Dir(r.folder))}
	go func() { _ = server.Serve(listener) }() // until the rig is closed
	h.servers = append(h.servers, server)
	data, err := os.ReadFile(filepath.Join(r.folder, id+".qcow2"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	op, err := h.api.RegisterTemplate(ctx, api.TemplateRequest{ID: id, URL: fmt.Sprintf("http://%s/%s.qcow2", listener.Addr(), id),
		Checksum: "sha256:" + hex.EncodeToString(sum[:]), Format: "qcow2", DirectDownload: direct}, "")
	if err == nil {
		op, err = h.api.WaitOperation(ctx, op.ID, nil)
	}
	if err != nil {
		return "", err
	}
	if op.Error != nil {
		return "", op.Error
	}
	t, err := h.api.Template(ctx, id)
	if err != nil || len(t.Copies) != 1 || t.Copies[0].State != api.CopyReady {
		return "", fmt.Errorf("copies %+v: %w", t.Copies, err)
	}
	return t.Copies[0].Path, nil
}
