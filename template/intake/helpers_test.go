package intake_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/intake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// written puts bytes into a file that only its owner may read, as the registry
// does, and opens it.
func written(t testing.TB, b []byte) *os.File {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "image"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	t.Cleanup(func() { file.Close() })
	_, err = file.Write(b)
	must(t, err)
	return file
}

func check(t testing.TB, x *intake.Examiner, b []byte, format string) error {
	t.Helper()
	_, err := x.Check(t.Context(), written(t, b), format)
	return err
}

// wantRefusal expects a refusal for good.
func wantRefusal(t testing.TB, err error, code, says string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	switch {
	case !ok:
		t.Errorf("got %v; want a refusal", err)
	case f.Code != code || f.Class != fault.Policy || !f.Permanent:
		t.Errorf("%q of class %q, permanent %v: %v; want %q", f.Code, f.Class, f.Permanent, err, code)
	case !strings.Contains(fault.Message(err), says):
		t.Errorf("says %q; want %q in it", fault.Message(err), says)
	case strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) || len(err.Error()) > fault.MaxMessage:
		t.Errorf("not fit for a terminal: %q", err)
	}
}

// wantTrouble expects an error that a later attempt may not meet.
func wantTrouble(t testing.TB, err error, code, says string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Code != code || f.Permanent || !strings.Contains(err.Error(), says) {
		t.Errorf("got %#v (%v); want %q, not for good, with %q", f, err, code, says)
	}
}

// standIn is a program to be run in place of qemu-img. Whoever it runs as can
// reach it.
func standIn(t testing.TB, script string) string {
	t.Helper()
	dir := openFolder(t)
	path := filepath.Join(dir, "stand-in")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return path
}

// openFolder is a folder that everybody may enter and write to.
func openFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o777))
	return dir
}

func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
