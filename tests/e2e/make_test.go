//go:build lab

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

const mib = 1 << 20

// Template images: what a guest on them verifies.
const (
	imageSize = 64 * mib
	imageData = 8 * mib
)

// picture makes a template image with a label. Another seed gives other bytes
// of the same size under the same label.
func (w *world) picture(label, seed string) string {
	w.Helper()
	raw := filepath.Join(w.TempDir(), label+".raw")
	w.must(image.Make(raw, label, seed, imageSize, imageData))
	out := filepath.Join(w.TempDir(), label+".qcow2")
	// No compression: images that differ in bytes must not differ in length.
	if msg, err := exec.CommandContext(w.ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out).CombinedOutput(); err != nil {
		w.Fatalf("making an image: %v: %s", err, msg)
	}
	return out
}

// serve offers a file over HTTP on the loopback of a host.
func (w *world) serve(on *side, file string) (url string) {
	w.Helper()
	listener, err := on.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.FileServer(http.Dir(filepath.Dir(file)))}
	go server.Serve(listener)
	w.Cleanup(func() { server.Close() })
	return fmt.Sprintf("http://%s/%s", listener.Addr(), filepath.Base(file))
}

func (w *world) checksum(file string) string {
	w.Helper()
	data, err := os.ReadFile(file)
	w.must(err)
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// template registers an image on a host, in the default pool or another, and
// waits until it is ready.
func (w *world) template(on *side, id, file string, direct bool, pool ...string) api.Template {
	w.Helper()
	op, err := on.api.RegisterTemplate(w.ctx, api.TemplateRequest{ID: id, URL: w.serve(on, file), Checksum: w.checksum(file),
		Format: "qcow2", DirectDownload: direct, Pool: strings.Join(pool, "")}, "")
	w.run(on, op, err)
	t, err := on.api.Template(w.ctx, id)
	w.must(err)
	if len(t.Copies) != 1 || t.Copies[0].State != api.CopyReady {
		w.Fatalf("template %+v; want one ready copy", t)
	}
	return t
}

// boot is how the lab's guest starts.
func boot() *api.Boot {
	return &api.Boot{Kernel: harness.GuestPath + "/vmlinuz", Initrd: harness.GuestPath + "/initrd.img", Cmdline: "console=ttyS0 no_timer_check wherry.pace=20ms"}
}

// create makes an instance from a template through the agent, and waits until
// its guest writes.
func (w *world) create(on *side, name, template, clone string) {
	w.Helper()
	w.must(w.lab.Guest(name).Forget(w.ctx))
	op, err := on.api.Create(w.ctx, api.DefaultProject, api.CreateRequest{Name: name, Template: template, Pool: "default", DiskSize: 2 * imageSize,
		Memory: 96 * mib, Clone: clone, Boot: boot(), ConsoleLog: "/var/log/wherry-guest/" + name + ".log", Start: true}, "")
	w.run(on, op, err)
	w.must(w.lab.Guest(name).WaitBlock(w.ctx, on.Host, "vda", 3))
}

// overlay makes a qcow2 volume on a backing file, on a host.
func (w *world) overlay(on *side, path, backing, backingFormat string) {
	w.Helper()
	_, err := on.Exec(w.ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", backingFormat, "-b", backing, path, fmt.Sprint(2*imageSize))
	w.must(err)
}

// volume makes a volume that stands alone.
func (w *world) volume(on *side, path, format string) {
	w.Helper()
	_, err := on.Exec(w.ctx, "qemu-img", "create", "-q", "-f", format, path, fmt.Sprint(2*imageSize))
	w.must(err)
}

// put copies a file of this machine into the default pool of a host.
func (w *world) put(on *side, file, name string) string {
	w.Helper()
	data, err := os.ReadFile(file)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(on.Images(), name), data, 0o600))
	return filepath.Join(harness.ImagesPath, name)
}

// foreign defines and starts an instance past the agent, as one that Wherry
// did not create, and waits until its guest writes.
func (w *world) foreign(on *side, d harness.Domain) {
	w.Helper()
	w.must(w.lab.Guest(d.Name).Forget(w.ctx))
	if d.Options == "" {
		d.Options = "wherry.pace=20ms"
	}
	w.must(on.Define(w.ctx, d.XML()))
	w.must(on.Start(w.ctx, d.Name))
	w.must(w.lab.Guest(d.Name).WaitBlock(w.ctx, on.Host, "vda", 3))
}
