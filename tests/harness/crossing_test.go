//go:build lab

package harness

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/tests/lab/guest/image"
)

// The lab itself, without Wherry: libvirt migrates a live guest there and back, and the guest says that all is there.
func TestLabCrossing(t *testing.T) {
	lab := Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	guest := prepare(ctx, t, lab, "crossing")
	for _, way := range []struct{ from, to *Host }{{lab.A, lab.B}, {lab.B, lab.A}} {
		must(t, guest.WaitMore(ctx, way.from, "vda", 5))
		overlay(ctx, t, way.to, "crossing")
		_, err := way.from.Virsh(ctx, "migrate", "--live", "--p2p", "--persistent", "--undefinesource",
			"--copy-storage-inc", "crossing", "qemu+tls://"+way.to.Hostname()+"/system")
		must(t, err)
		must(t, guest.WaitMore(ctx, way.to, "vda", 5))
		verified(ctx, t, guest, way.to)
		_, err = way.from.Exec(ctx, "rm", ImagesPath+"/crossing.qcow2")
		must(t, err)
	}
	must(t, guest.Pause(ctx, lab.A))
	must(t, guest.Dirty(ctx, lab.A, 8))
	must(t, guest.Resume(ctx, lab.A))
	boots, err := guest.Boots(ctx)
	if err != nil || len(boots) != 1 {
		t.Errorf("boots %q, %v; want one", boots, err)
	}
	_, err = lab.A.Virsh(ctx, "shutdown", "crossing")
	must(t, err)
	must(t, guest.WaitLine(ctx, lab.A, "POWEROFF"))
}

// What was written before a power cut is found by the next boot, and counted on.
func TestGuestGoesOnAfterDestroy(t *testing.T) {
	lab := Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	guest := prepare(ctx, t, lab, "again")
	must(t, guest.WaitBlock(ctx, lab.A, "vda", 10))
	_, err := lab.A.Virsh(ctx, "destroy", "again")
	must(t, err)
	last, err := guest.LastBlock(ctx, lab.A, "vda")
	must(t, err)
	must(t, lab.A.Start(ctx, "again"))
	must(t, guest.WaitBlock(ctx, lab.A, "vda", last+5))
	verified(ctx, t, guest, lab.A)
	if boots, err := guest.Boots(ctx); err != nil || len(boots) != 2 {
		t.Errorf("boots %q, %v; want two", boots, err)
	}
}

// A base with other bytes under the same name is what a wrong linked clone would stand on: the guest must notice.
func TestGuestNoticesAnotherBase(t *testing.T) {
	lab := Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	guest := prepare(ctx, t, lab, "wrongbase")
	must(t, guest.WaitBlock(ctx, lab.A, "vda", 3))
	base(ctx, t, lab.B, "2")
	overlay(ctx, t, lab.B, "wrongbase")
	_, err := lab.A.Virsh(ctx, "migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--copy-storage-inc",
		"wrongbase", "qemu+tcp://wherry-b/system")
	must(t, err)
	reports, err := guest.Verify(ctx, lab.B)
	if err == nil {
		t.Errorf("the guest stands on another base and reports %+v", reports)
	}
}

// A cut link swallows packets: a connection neither ends nor is refused, and goes on once the link is back.
func TestLinkCut(t *testing.T) {
	lab := Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	listener, err := lab.A.Listen("tcp", "10.77.0.1:0")
	must(t, err)
	defer listener.Close()
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") }))
	url := "http://" + listener.Addr().String()
	answer, err := lab.B.Exec(ctx, "curl", "-sS", "--max-time", "5", url)
	if err != nil || answer != "here" {
		t.Fatalf("before: %q, %v", answer, err)
	}
	must(t, lab.A.Link(ctx, false))
	defer lab.A.Link(context.WithoutCancel(ctx), true)
	_, err = lab.B.Exec(ctx, "curl", "-sS", "--max-time", "1", url)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 28 {
		t.Errorf("across the cut: %v; want a time-out", err)
	}
	must(t, lab.A.Link(ctx, true))
	answer, err = lab.B.Exec(ctx, "curl", "-sS", "--max-time", "20", url)
	if err != nil || answer != "here" {
		t.Errorf("after: %q, %v", answer, err)
	}
}

// A logical unit of host b is read and written from a guest on host a.
func TestGuestOnISCSI(t *testing.T) {
	lab := Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	guest := prepare(ctx, t, lab, "iscsi")
	_, err := lab.B.Exec(ctx, "truncate", "-s", "32M", SecondPath+"/unit")
	must(t, err)
	url, err := lab.B.ExportISCSI(ctx, 1, "iqn.2024-01.org.wherry:unit", SecondPath+"/unit")
	must(t, err)
	defer lab.B.EndISCSI(context.WithoutCancel(ctx))
	_, err = lab.A.Virsh(ctx, "destroy", "iscsi")
	must(t, err)
	must(t, lab.A.Define(ctx, Domain{Name: "iscsi", UUID: uuidOf(ctx, t, lab.A, "iscsi"), Disks: []Disk{
		{Target: "sda", Source: url, Format: "raw"},
		{Target: "vda", Source: ImagesPath + "/iscsi.qcow2"},
	}}.XML()))
	must(t, lab.A.Start(ctx, "iscsi"))
	must(t, guest.WaitBlock(ctx, lab.A, "sda", 5))
	reports, err := guest.Verify(ctx, lab.A)
	if err != nil || len(reports) != 2 {
		t.Errorf("%+v, %v", reports, err)
	}
}

// Killing a command of the harness kills it in the host.
func TestKilledCommandsEnd(t *testing.T) {
	lab := Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := lab.A.Command(ctx, "sh", "-c", "echo $$ >/run/killed.pid; exec sleep 1000")
	must(t, cmd.Start())
	alive := []string{"sh", "-c", `kill -0 "$(cat /run/killed.pid)"`}
	must(t, Until(ctx, "the command", func(ctx context.Context) error {
		_, err := lab.A.Exec(ctx, alive...)
		return err
	}))
	must(t, cmd.Process.Kill())
	cmd.Wait()
	must(t, Until(ctx, "the end of the command in the host", func(ctx context.Context) error {
		if _, err := lab.A.Exec(ctx, alive...); err == nil {
			return errors.New("it runs on")
		}
		return nil
	}))
}

func uuidOf(ctx context.Context, t *testing.T, h *Host, name string) string {
	t.Helper()
	uuid, err := h.Virsh(ctx, "domuuid", name)
	must(t, err)
	return uuid
}

// prepare boots a guest on host a, on an overlay over a template that both hosts have.
func prepare(ctx context.Context, t *testing.T, lab *Lab, name string) *Guest {
	t.Helper()
	guest := lab.Guest(name)
	must(t, guest.Forget(ctx))
	for _, h := range lab.Hosts() {
		must(t, h.Reset(ctx))
		base(ctx, t, h, "1")
	}
	t.Cleanup(func() {
		for _, h := range lab.Hosts() {
			if err := h.Remove(context.Background(), name); err != nil {
				t.Error(err)
			}
		}
	})
	overlay(ctx, t, lab.A, name)
	domain := Domain{Name: name, Options: "wherry.pace=20ms", Disks: []Disk{{Target: "vda", Source: ImagesPath + "/" + name + ".qcow2"}}}
	must(t, lab.A.Define(ctx, domain.XML()))
	must(t, lab.A.Start(ctx, name))
	return guest
}

func base(ctx context.Context, t *testing.T, h *Host, seed string) {
	t.Helper()
	if h.Images() == "" {
		t.Skip("the images are not seen from here")
	}
	raw := filepath.Join(t.TempDir(), "raw")
	must(t, image.Make(raw, "rocky9", seed, 64<<20, 2<<20))
	out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, h.Images()+"/base.qcow2").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func overlay(ctx context.Context, t *testing.T, h *Host, name string) {
	t.Helper()
	_, err := h.Exec(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", ImagesPath+"/base.qcow2", ImagesPath+"/"+name+".qcow2")
	must(t, err)
	_, err = h.Virsh(ctx, "pool-refresh", "default")
	must(t, err)
}

func verified(ctx context.Context, t *testing.T, guest *Guest, h *Host) {
	t.Helper()
	reports, err := guest.Verify(ctx, h)
	if err != nil || len(reports) != 1 || reports[0].Template != 512 || reports[0].Label != "rocky9" {
		t.Errorf("on host %s: %+v, %v", h.Name, reports, err)
	}
	t.Logf("host %s: %+v", h.Name, reports)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
