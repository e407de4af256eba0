package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

const (
	instance = "bench"
	volume   = harness.ImagesPath + "/" + instance + ".qcow2"
)

// rig is the lab with the same template on both hosts.
type rig struct {
	lab  *harness.Lab
	base string // the template's copy, at the same path on both hosts
	size int64  // of the disk
}

func newRig(ctx context.Context, data int64) (*rig, error) {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	lab, err := harness.Connect(ctx)
	if err != nil {
		return nil, err
	}
	r := &rig{lab: lab, size: 2 * data}
	file, sum, err := template(ctx, folder, r.size, data)
	if err != nil {
		return nil, err
	}
	for _, h := range lab.Hosts() {
		if err := h.Reset(ctx); err != nil {
			return nil, err
		}
		path, err := register(ctx, h, file, sum)
		if err != nil {
			return nil, fmt.Errorf("the template on host %s: %w", h.Name, err)
		}
		if r.base != "" && r.base != path {
			return nil, fmt.Errorf("the template lies at %s and at %s", r.base, path)
		}
		r.base = path
		if err := h.Rate(ctx, rate); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *rig) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, h := range r.lab.Hosts() {
		if err := errors.Join(h.Rate(ctx, "off"), h.Remove(ctx, instance)); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

// template makes the image, and gives its checksum.
func template(ctx context.Context, folder string, size, data int64) (file, sum string, err error) {
	raw, file := filepath.Join(folder, "raw"), filepath.Join(folder, "template.qcow2")
	if err := image.Make(raw, "bench", fmt.Sprint(time.Now().UnixNano()), size, data); err != nil {
		return "", "", err
	}
	if out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, file).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%w: %s", err, out)
	}
	in, err := os.Open(file)
	if err != nil {
		return "", "", err
	}
	defer in.Close()
	digest := sha256.New()
	_, err = io.Copy(digest, in)
	return file, "sha256:" + hex.EncodeToString(digest.Sum(nil)), err
}

// register has the host's agent download the template, and gives its path.
func register(ctx context.Context, h *harness.Host, file, sum string) (string, error) {
	listener, err := h.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.FileServer(http.Dir(filepath.Dir(file)))}
	go server.Serve(listener)
	defer server.Close()
	agent, err := client.New("unix:"+h.Socket(), client.TLS{})
	if err != nil {
		return "", err
	}
	defer agent.Close()
	// Another content each time needs another name on a lab that is up already.
	id := "bench-" + sum[len("sha256:"):][:12]
	op, err := agent.RegisterTemplate(ctx, api.TemplateRequest{ID: id, URL: fmt.Sprintf("http://%s/%s", listener.Addr(), filepath.Base(file)),
		Checksum: sum, Format: "qcow2"}, "")
	if err != nil {
		return "", err
	}
	if op, err = agent.WaitOperation(ctx, op.ID, nil); err != nil {
		return "", err
	}
	if op.Error != nil {
		return "", op.Error
	}
	t, err := agent.Template(ctx, id)
	if err != nil || len(t.Copies) == 0 {
		return "", fmt.Errorf("%+v: %w", t, err)
	}
	return t.Copies[0].Path, nil
}

// run boots a fresh instance on host a, migrates it, and makes sure that it lives on host b.
func (r *rig) run(ctx context.Context, k kind, migrate func(context.Context, kind) (cost, error)) (cost, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	a, b, guest := r.lab.A, r.lab.B, r.lab.Guest(instance)
	for _, h := range r.lab.Hosts() {
		if err := h.Remove(ctx, instance); err != nil {
			return cost{}, err
		}
		if _, err := h.Exec(ctx, "rm", "-f", volume); err != nil {
			return cost{}, err
		}
	}
	domain := harness.Domain{Name: instance, Disks: []harness.Disk{{Target: "vda", Source: volume}}}
	if err := errors.Join(guest.Forget(ctx), r.overlay(ctx, a), a.Define(ctx, domain.XML())); err != nil {
		return cost{}, err
	}
	if err := errors.Join(a.Start(ctx, instance), guest.WaitBlock(ctx, a, "vda", 5)); err != nil {
		return cost{}, err
	}
	before, err := wire(ctx, a)
	if err != nil {
		return cost{}, err
	}
	c, err := migrate(ctx, k)
	if err != nil {
		return c, err
	}
	after, err := wire(ctx, a)
	if err != nil {
		return c, err
	}
	c.wire = after - before
	if c.downtime, err = downtime(ctx, b); err != nil {
		return c, err
	}
	return c, guest.WaitMore(ctx, b, "vda", 3)
}

func (r *rig) overlay(ctx context.Context, h *harness.Host) error {
	_, err := h.Exec(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", r.base, volume, fmt.Sprint(r.size))
	return err
}

// wherry migrates by the command line, as a person would.
func (r *rig) wherry(ctx context.Context, k kind) (cost, error) {
	began := time.Now()
	out, err := r.lab.A.Exec(ctx, append([]string{"wherry", "--output", "json", "migrate", instance, "wherry-b"}, k.wherry...)...)
	c := cost{wall: time.Since(began)}
	if err != nil {
		return c, err
	}
	var op struct{ Result api.MigrateResult }
	if err := json.Unmarshal([]byte(out), &op); err != nil {
		return c, fmt.Errorf("%q: %w", out, err)
	}
	c.phases = map[string]time.Duration{}
	for name, d := range op.Result.Phases {
		c.phases[name] = d.Std()
	}
	c.perform = c.phases["perform"]
	if k.seeded {
		c.filling = c.phases["prepare"]
	}
	return c, nil
}

// backing is all that a disk's XML says of the layers below.
var backing = regexp.MustCompile(`(?s)<backingStore type.*</backingStore>`)

// virsh migrates as an administrator would who knows all that Wherry finds out. Only what takes its time for the disk's
// sake counts: the filling and the migration.
func (r *rig) virsh(ctx context.Context, k kind) (cost, error) {
	var c cost
	a, b := r.lab.A, r.lab.B
	var err error
	switch {
	case k.linked:
		err = r.overlay(ctx, b)
	case k.seeded:
		began := time.Now()
		_, err = b.Exec(ctx, "qemu-img", "convert", "-W", "-m", "8", "-f", "qcow2", "-O", "qcow2", r.base, volume)
		c.filling = time.Since(began)
	default:
		_, err = b.Exec(ctx, "qemu-img", "create", "-q", "-f", "qcow2", volume, fmt.Sprint(r.size))
	}
	if err != nil {
		return c, err
	}
	for file, option := range map[string]string{"live": "--migratable", "next": "--inactive"} {
		xml, err := a.Virsh(ctx, "dumpxml", instance, option)
		if err != nil {
			return c, err
		}
		if !k.linked {
			xml = backing.ReplaceAllString(xml, "<backingStore/>")
		}
		if _, err := a.Input(ctx, xml, "sh", "-c", `cat >"/run/bench-$0.xml"`, file); err != nil {
			return c, err
		}
	}
	// libvirt believes its list of a pool's volumes.
	if _, err := b.Virsh(ctx, "pool-refresh", "default"); err != nil {
		return c, err
	}
	began := time.Now()
	_, err = a.Virsh(ctx, "migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--abort-on-error", k.virsh, "--migrate-disks", "vda",
		"--xml", "/run/bench-live.xml", "--persistent-xml", "/run/bench-next.xml", instance, "qemu+tcp://wherry-b/system")
	c.perform = time.Since(began)
	c.wall = c.filling + c.perform
	return c, err
}

// wire is how many bytes the host's link has carried, both ways.
func wire(ctx context.Context, h *harness.Host) (int64, error) {
	out, err := h.Exec(ctx, "cat", "/sys/class/net/eth0/statistics/tx_bytes", "/sys/class/net/eth0/statistics/rx_bytes")
	if err != nil {
		return 0, err
	}
	var sum int64
	for word := range strings.FieldsSeq(out) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

var downtimeText = regexp.MustCompile(`Total downtime:\s+(\d+)\s+ms`)

// downtime is what libvirt measured of the migration that has arrived.
func downtime(ctx context.Context, h *harness.Host) (time.Duration, error) {
	out, err := h.Virsh(ctx, "domjobinfo", instance, "--completed", "--keep-completed")
	if err != nil {
		return 0, err
	}
	found := downtimeText.FindStringSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("no downtime in %q", out)
	}
	n, err := strconv.Atoi(found[1])
	return time.Duration(n) * time.Millisecond, err
}
