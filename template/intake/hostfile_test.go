package intake_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/intake"
	"github.com/wherry-kvm/wherry/template/intake/hostile"
)

// watch tells afterwards whether anybody has opened a file: the kernel keeps
// count of it, however short it was open.
func watch(t *testing.T, path string) (opened func() bool) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_ACCESS)
	must(t, err)
	return func() bool {
		_, err := unix.Read(fd, make([]byte, 4096))
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		return err == nil
	}
}

// victims are files of the host that images name: one with a secret, that
// everybody may read, and a pipe, on which a reader would also hang.
func victims(t *testing.T) []string {
	dir := openFolder(t)
	secret, pipe := filepath.Join(dir, "secret"), filepath.Join(dir, "pipe")
	must(t, os.WriteFile(secret, bytes.Repeat([]byte("secret"), 1000), 0o644))
	must(t, unix.Mkfifo(pipe, 0o644))
	return []string{secret, pipe}
}

// No file of the host is opened through an image, be it that it is named as a
// path, through a link, or in a description of block devices.
func TestNoFileOfTheHostIsOpened(t *testing.T) {
	x := intake.New(intake.Options{})
	for _, victim := range victims(t) {
		link := filepath.Join(filepath.Dir(victim), filepath.Base(victim)+".link")
		must(t, os.Symlink(victim, link))
		opened := watch(t, victim)
		for _, image := range append(hostile.All(victim), hostile.Names(link)...) {
			wantRefusal(t, check(t, x, image.Bytes, image.Format), image.Code, image.Says)
			if opened() {
				t.Fatalf("%s: somebody opened %s", image.Name, victim)
			}
		}
	}
}

// Even if our own reader let such an image through, qemu-img would open no
// other file, and what it says would be refused.
func TestNoFileOfTheHostIsOpenedByQemuImg(t *testing.T) {
	x := intake.New(intake.Options{})
	for _, victim := range victims(t) {
		opened := watch(t, victim)
		for _, image := range hostile.Names(victim) {
			t.Run(filepath.Base(victim)+" "+image.Name, func(t *testing.T) {
				err := x.Ask(t.Context(), written(t, image.Bytes), template.ImageInfo{Format: "qcow2", VirtualSize: mib})
				// QEMU reports no data file without a name, and no name without
				// its bit: these two only our own reader refuses.
				if err == nil && image.Name != "data-file-without-bit" && image.Name != "data-file-unnamed" {
					t.Error("let through")
				}
				if opened() {
					t.Errorf("somebody opened %s", victim)
				}
			})
		}
	}
}

// The proof can fail: whoever follows the name is seen.
func TestWhoOpensAFileIsSeen(t *testing.T) {
	secret := victims(t)[0]
	opened := watch(t, secret)
	var image *hostile.Image
	for _, i := range hostile.Names(secret) {
		if i.Name == "backing-file" {
			image = &i
		}
	}
	file := written(t, image.Bytes)
	if opened() {
		t.Fatal("seen before it happened")
	}
	must(t, exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "qcow2", "-c", "read 64k 4k", file.Name()).Run())
	if !opened() {
		t.Error("not seen")
	}
}
