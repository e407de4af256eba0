//go:build lab

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// exec runs a command of a host that must succeed.
func (w *world) exec(on *side, args ...string) string {
	w.Helper()
	out, err := on.Exec(w.ctx, args...)
	w.must(err)
	return strings.TrimSpace(out)
}

// layer is an image as QEMU's tools and libvirt's XML name it.
type layer struct{ path, format string }

// stands wants a disk to stand on exactly these layers, active one first, and
// three witnesses to say so: the images' own headers, libvirt's live XML, and
// the definition for the next start.
func (w *world) stands(on *side, name, target string, want ...layer) {
	w.Helper()
	if got := w.headers(on, want[0].path); !slices.Equal(got, want) {
		w.Errorf("host %s: the headers of %q say %v; want %v", on.Name, target, got, want)
	}
	for _, flags := range [][]string{nil, {"--inactive"}} {
		d := w.defined(on, name, target, flags...)
		got := []layer{{d.Source, d.Format}}
		for _, b := range d.Chain {
			got = append(got, layer{b.Path, b.Format})
		}
		if !slices.Equal(got, want) {
			w.Errorf("host %s: libvirt %v says of %q %v; want %v", on.Name, flags, target, got, want)
		}
	}
}

// defined gives a disk of a domain's XML.
func (w *world) defined(on *side, name, target string, flags ...string) domainxml.Disk {
	w.Helper()
	xml, err := on.Virsh(w.ctx, append([]string{"dumpxml", name}, flags...)...)
	w.must(err)
	d, err := domainxml.Parse(xml)
	w.must(err)
	i := slices.IndexFunc(d.Disks, func(d domainxml.Disk) bool { return d.Target == target })
	if i < 0 {
		w.Fatalf("%q has no disk %q on host %s", name, target, on.Name)
	}
	return d.Disks[i]
}

// imageInfo is what qemu-img says of an image.
type imageInfo struct {
	Filename    string `json:"filename"`
	Format      string `json:"format"`
	VirtualSize int64  `json:"virtual-size"`
	ActualSize  int64  `json:"actual-size"`
	ClusterSize int64  `json:"cluster-size"`
	Specific    struct {
		Data struct {
			Compat     string `json:"compat"`
			ExtendedL2 bool   `json:"extended-l2"`
		} `json:"data"`
	} `json:"format-specific"`
}

// info asks qemu-img about an image that may be in use, and all it stands on.
func (w *world) info(on *side, path string) []imageInfo {
	w.Helper()
	var out []imageInfo
	w.must(json.Unmarshal([]byte(w.exec(on, "qemu-img", "info", "-U", "--backing-chain", "--output=json", path)), &out))
	return out
}

func (w *world) headers(on *side, path string) []layer {
	w.Helper()
	var out []layer
	for _, i := range w.info(on, path) {
		out = append(out, layer{i.Filename, i.Format})
	}
	return out
}

// hold stops the guest's writing and gives what its disks hold, until compare.
func (w *world) hold(on *side, name string, targets ...string) map[string]string {
	w.Helper()
	w.must(w.lab.Guest(name).Pause(w.ctx, on.Host))
	out := map[string]string{}
	for _, t := range targets {
		out[t] = w.export(on, name, t)
	}
	return out
}

// compare wants the disks to hold on this host what they held, and lets the
// guest write again.
func (w *world) compare(held map[string]string, on *side, name string) {
	w.Helper()
	for target, before := range held {
		now := w.export(on, name, target)
		if out, err := exec.CommandContext(w.ctx, "qemu-img", "compare", "-f", "raw", "-F", "raw", before, now).CombinedOutput(); err != nil {
			w.Errorf("disk %s of %q differs on host %s: %v: %s", target, name, on.Name, err, out)
		}
	}
	w.must(w.lab.Guest(name).Resume(w.ctx, on.Host))
}

// export copies what a guest reads of a disk to a raw file of this machine.
func (w *world) export(on *side, name, target string) string {
	w.Helper()
	d := w.defined(on, name, target)
	out := "export-" + target + ".raw"
	w.exec(on, "qemu-img", "convert", "-U", "-f", d.Format, "-O", "raw", d.Source, harness.SharedPath+"/"+out)
	kept := filepath.Join(w.TempDir(), out)
	w.must(exec.CommandContext(w.ctx, "mv", filepath.Join(on.Shared(), out), kept).Run())
	return kept
}

// carried migrates an instance whose guest holds still, and wants every disk
// named to hold the same bytes on the other host. The guest then writes on.
func (w *world) carried(from *side, name string, r api.MigrateRequest, targets ...string) api.MigrateResult {
	w.Helper()
	held := w.hold(from, name, targets...)
	result := w.migrate(from, name, r)
	w.compare(held, w.other(from), name)
	w.alive(name, w.other(from))
	return result
}

// copied gives another host a file of this one, under any path.
func (w *world) copied(from *side, path string, to *side, as string) {
	w.Helper()
	data, err := os.ReadFile(w.seen(from, path))
	w.must(err)
	w.must(os.WriteFile(w.seen(to, as), data, 0o600))
}

// seen is a file of a host's pools as this machine reaches it.
func (w *world) seen(on *side, path string) string {
	w.Helper()
	folder := map[string]string{harness.ImagesPath: on.Images(), harness.SecondPath: on.Second(), harness.SharedPath: on.Shared()}[filepath.Dir(path)]
	if folder == "" {
		w.Fatalf("%s lies in no pool of host %s", path, on.Name)
	}
	return filepath.Join(folder, filepath.Base(path))
}

// image is the path of a file in a host's default pool.
func images(file string) string { return filepath.Join(harness.ImagesPath, file) }

// reasons gives the codes of a plan's reasons, "code" or "code:disk".
func reasons(p api.Plan) []string {
	var out []string
	for _, r := range p.Reasons {
		code := r.Code
		if r.Disk != "" {
			code += ":" + r.Disk
		}
		out = append(out, code)
	}
	return out
}

// decided wants a plan of that mode for exactly these reasons.
func (w *world) decided(p api.Plan, mode string, forced bool, want ...string) {
	w.Helper()
	got := reasons(p)
	slices.Sort(got)
	slices.Sort(want)
	if p.Mode != mode || p.Forced != forced || !slices.Equal(got, want) {
		w.Errorf("plan %s, forced %v, for %q (%+v); want %s, %v, for %q", p.Mode, p.Forced, got, p.Reasons, mode, forced, want)
	}
}
