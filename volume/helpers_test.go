package volume_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/volume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	kib = 1 << 10
	mib = 1 << 20
)

// run runs a command, which must succeed, and returns its standard output.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	// Cleanups run commands too, when the test's context has ended.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out.String(), errs.String())
	}
	return out.String()
}

// qemuImg runs qemu-img, which must succeed.
func qemuImg(t testing.TB, args ...string) string {
	t.Helper()
	return run(t, "qemu-img", args...)
}

// qcow2 makes an image with further qemu-img create arguments before its path.
func qcow2(t testing.TB, path, size string, args ...string) string {
	t.Helper()
	qemuImg(t, append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path, size)...)
	return path
}

// write puts patterns into an image as a guest would.
func write(t testing.TB, format, path string, commands ...string) {
	t.Helper()
	args := []string{"-f", format}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	run(t, "qemu-io", append(args, path)...)
}

func writeFile(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tempDir is a test's folder with links resolved, as chains report paths.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func walk(t testing.TB, path string, format volume.Format, roots ...string) volume.Chain {
	t.Helper()
	c, err := volume.Walk(path, format, roots)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// formatted reserves and formats a volume.
func formatted(t testing.TB, s volume.Spec) volume.Owned {
	t.Helper()
	o, err := volume.Reserve(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Format(t.Context(), s, volume.Exec{}); err != nil {
		t.Fatal(err)
	}
	return o
}
