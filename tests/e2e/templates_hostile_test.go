//go:build lab

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// canary is a file of the host that hostile images want to be read. It is in
// nobody's way and nobody's business.
const canary = harness.SharedPath + "/canary"

// hostile is an image that must not become a template. make writes it to a
// path of this machine, in the folder where it runs.
type hostile struct {
	what, format string
	says         string
	make         func(w *world, path string)
}

// Images that would make a host read its own files, or those of others, or
// spend more than it has, are refused by name and for good, and no file of the
// host is even opened for them.
func TestTemplateHostileImages(t *testing.T) {
	w := begin(t)
	w.agentWith(w.a, quick...)
	o := w.origin(w.a, "127.0.0.1")
	w.must(os.WriteFile(w.seen(w.a, canary), []byte("what nobody but the host may read\n"), 0o600))
	touched := w.watched(w.seen(w.a, canary))
	ids := make([]string, len(hostiles))
	for i, h := range hostiles {
		name := fmt.Sprintf("hostile-%d", i)
		h.make(w, o.File(name))
		ids[i] = fmt.Sprintf("%s-%d", w.unique("tpl"), i)
		w.registered(w.a, api.TemplateRequest{ID: ids[i], Format: h.format, URL: o.URL("plain", name), Checksum: w.checksum(o.File(name))})
	}
	for i, h := range hostiles {
		w.substep(h.what+" as "+h.format, func(w *world) {
			failed := w.untilCopy(w.a, ids[i], "to be refused", func(c api.TemplateCopy) bool {
				if isReady(c) {
					w.Fatalf("copy %+v; want it refused", c)
				}
				return isFailed(c)
			})
			w.blamed(failed, failed.Code, "policy", h.says)
			if failed.Code != "image" && failed.Code != "not-an-image" || failed.RetryAt != nil || failed.Attempts != 1 {
				w.Errorf("copy %+v; want it refused for good", failed)
			}
		})
	}
	if left := append(w.files(w.a), w.hidden(w.a, harness.ImagesPath)...); len(left) != 0 {
		t.Errorf("left in the pool: %q", left)
	}
	if touched() {
		t.Error("a file of the host was opened for an image")
	}
	// The watch is worth something.
	w.exec(w.a, "cat", canary)
	if !touched() {
		t.Error("a file of the host was opened unseen")
	}
}

// watched tells, each time it is asked, whether a file was opened since.
func (w *world) watched(path string) func() bool {
	w.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	w.must(err)
	w.Cleanup(func() { unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_ACCESS)
	w.must(err)
	return func() bool {
		w.Helper()
		n, err := unix.Read(fd, make([]byte, 4096))
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			w.Fatal(err)
		}
		return n > 0
	}
}

var hostiles = []hostile{
	{"a backing file", "qcow2", "backing", created("-u", "-b", canary, "-F", "raw")},
	{"a backing file in JSON", "qcow2", "backing", created("-u", "-F", "raw", "-b", `json:{"driver":"raw","file":{"driver":"file","filename":"`+canary+`"}}`)},
	{"a backing file by protocol", "qcow2", "backing", created("-u", "-b", "nbd://127.0.0.1:10809/x", "-F", "raw")},
	{"a backing file by version 2", "qcow2", "backing", created("-u", "-b", canary, "-F", "raw", "-o", "compat=0.10")},
	{"a data file", "qcow2", "data", dataFile},
	{"internal snapshots", "qcow2", "snapshot", then(created(), func(w *world, path string) { w.image("qemu-img", "snapshot", "-c", "s", path) })},
	{"encryption", "qcow2", "encrypt", then(created(), poke(32, 2<<32|1))},
	{"a dirty mark", "qcow2", "dirty", then(created(), poke(72, 1))},
	{"a corrupt mark", "qcow2", "corrupt", then(created(), poke(72, 2))},
	{"an unknown feature", "qcow2", "feature", then(created(), poke(72, 1<<40))},
	{"an L1 table beyond the end", "qcow2", "L1", then(created(), poke(40, 1<<50))},
	{"an L1 table of an absurd size", "qcow2", "L1", then(created(), poke(36, 0x10000000<<32|0x30000))},
	{"a disk larger than is allowed", "qcow2", "virtual size", sized("3T")},
	{"a qcow2", "raw", "qcow2", created()},
	{"a qcow2 with a backing file", "raw", "qcow2", created("-u", "-b", canary, "-F", "raw")},
	{"a VMDK that names a file", "raw", "VMDK", descriptor},
	{"a VMDK that names a file", "qcow2", "VMDK", descriptor},
	{"a VMDK", "raw", "VMDK", other("vmdk")},
	{"a VDI", "raw", "VDI", other("vdi")},
	{"a VHD", "raw", "VHD", other("vpc")},
	{"a VHDX", "raw", "VHDX", other("vhdx")},
	{"a QED", "raw", "QED", other("qed")},
	{"a LUKS volume", "raw", "LUKS", func(w *world, path string) {
		w.must(os.WriteFile(path, append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, mib)...), 0o600))
	}},
	{"an ISO 9660", "raw", "ISO", func(w *world, path string) {
		image := make([]byte, mib)
		copy(image[0x8001:], "CD001")
		w.must(os.WriteFile(path, image, 0o600))
	}},
}

// image runs one of QEMU's tools on this machine.
func (w *world) image(args ...string) {
	w.Helper()
	if out, err := exec.CommandContext(w.ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		w.Fatalf("%q: %v: %s", args, err, out)
	}
}

// created makes a qcow2 of 64 MiB with options of qemu-img.
func created(options ...string) func(*world, string) {
	return func(w *world, path string) {
		w.Helper()
		w.image(append(append([]string{"qemu-img", "create", "-q", "-f", "qcow2"}, options...), path, "64M")...)
	}
}

func sized(size string) func(*world, string) {
	return func(w *world, path string) {
		w.Helper()
		w.image("qemu-img", "create", "-q", "-f", "qcow2", path, size)
	}
}

func other(format string) func(*world, string) {
	return func(w *world, path string) {
		w.Helper()
		w.image("qemu-img", "create", "-q", "-f", format, path, "64M")
	}
}

func then(first, next func(*world, string)) func(*world, string) {
	return func(w *world, path string) { w.Helper(); first(w, path); next(w, path) }
}

// poke writes eight bytes, big endian, over a header.
func poke(at int64, value uint64) func(*world, string) {
	return func(w *world, path string) {
		w.Helper()
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		w.must(err)
		_, err = file.WriteAt(binary.BigEndian.AppendUint64(nil, value), at)
		w.must(errors.Join(err, file.Close()))
	}
}

// dataFile makes a qcow2 whose data lies in the canary. qemu-img makes the data
// file too, so that the name is put in afterwards.
func dataFile(w *world, path string) {
	w.Helper()
	name := bytes.Repeat([]byte("d"), len(canary))
	cmd := exec.CommandContext(context.WithoutCancel(w.ctx), "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+string(name)+",data_file_raw=on", path, "64M")
	cmd.Dir = filepath.Dir(path)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("qemu-img: %v: %s", err, out)
	}
	image, err := os.ReadFile(path)
	w.must(err)
	if !bytes.Contains(image, name) {
		w.Fatal("the image does not name its data file")
	}
	w.must(os.WriteFile(path, bytes.ReplaceAll(image, name, []byte(canary)), 0o600))
}

// descriptor makes a VMDK that is a text, and names the canary as its data.
func descriptor(w *world, path string) {
	w.Helper()
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW 8192 FLAT %q 0\n\nddb.adapterType = \"ide\"\n", canary)
	w.must(os.WriteFile(path, append([]byte(text), make([]byte, mib)...), 0o600))
}
