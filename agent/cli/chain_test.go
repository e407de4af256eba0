package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// image makes an image with qemu-img.
func image(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", append([]string{"create", "-q"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img create %v: %v\n%s", args, err, out)
	}
}

// alone runs a command that needs no agent.
func alone(t *testing.T, args ...string) (out, errs string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	status = newApp(strings.NewReader(""), &o, &e).run(args, make(chan os.Signal))
	return o.String(), e.String(), status
}

func TestChain(t *testing.T) {
	folder, elsewhere := t.TempDir(), t.TempDir()
	base, middle, top := filepath.Join(folder, "base.raw"), filepath.Join(folder, "middle.qcow2"), filepath.Join(folder, "top.qcow2")
	image(t, "-f", "raw", base, "1M")
	image(t, "-f", "qcow2", "-b", base, "-F", "raw", middle)
	image(t, "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", top, "2M")
	outside := filepath.Join(elsewhere, "outside.qcow2")
	image(t, "-f", "qcow2", "-b", base, "-F", "raw", outside)

	t.Run("tree", func(t *testing.T) {
		out, errs, status := alone(t, "chain", top)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if status != exitDone || errs != "" || len(lines) != 3 {
			t.Fatalf("status %d\n%s%s", status, out, errs)
		}
		for i, want := range []string{top + "  qcow2  2.0 MiB", "└ " + middle + "  qcow2  1.0 MiB", "  └ " + base + "  raw  1.0 MiB"} {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("line %d is %q, want it to begin with %q", i, lines[i], want)
			}
		}
	})
	t.Run("json", func(t *testing.T) {
		out, _, status := alone(t, "chain", top, "-o", "json")
		var answer chainAnswer
		if err := json.Unmarshal([]byte(out), &answer); err != nil || status != exitDone {
			t.Fatal(status, err)
		}
		if len(answer.Chain) != 3 || answer.Chain[2].Path != base || answer.Chain[0].VirtualSize != 2<<20 || len(answer.Issues) != 0 {
			t.Errorf("%+v", answer)
		}
	})
	t.Run("layer elsewhere", func(t *testing.T) {
		out, errs, status := alone(t, "chain", outside)
		if status != exitFailed || !strings.Contains(errs, base) || !strings.Contains(errs, "--root") {
			t.Errorf("status %d, want a failure that names the layer and --root\n%s", status, errs)
		}
		if !strings.HasPrefix(out, outside+"  qcow2") {
			t.Errorf("what could be read is not shown:\n%s", out)
		}
		out, errs, status = alone(t, "chain", outside, "--root", folder)
		if status != exitDone || !strings.Contains(out, "└ "+base) {
			t.Errorf("with --root: status %d\n%s%s", status, out, errs)
		}
	})
	t.Run("raw is never guessed", func(t *testing.T) {
		if _, errs, status := alone(t, "chain", base); status != exitFailed || !strings.Contains(errs, "--format raw") {
			t.Errorf("status %d\n%s", status, errs)
		}
		if out, errs, status := alone(t, "chain", base, "--format", "raw"); status != exitDone || !strings.HasPrefix(out, base+"  raw") {
			t.Errorf("with --format raw: status %d\n%s%s", status, out, errs)
		}
	})
	t.Run("issues are shown", func(t *testing.T) {
		if out, err := exec.CommandContext(t.Context(), "qemu-img", "snapshot", "-c", "first", top).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if out, _, _ := alone(t, "chain", top); !strings.Contains(out, "! snapshots-present") {
			t.Errorf("a snapshot is not shown:\n%s", out)
		}
	})
	t.Run("missing file", func(t *testing.T) {
		if _, errs, status := alone(t, "chain", filepath.Join(folder, "none")); status != exitFailed || !strings.Contains(errs, "none") {
			t.Errorf("status %d\n%s", status, errs)
		}
	})
}

func TestConfigCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "w.yaml")
	if err := os.WriteFile(file, []byte("host: {name: a}\nmigration: {lease: 90s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, status := alone(t, "config", "check", "--config", file, "--set", "log.level=debug")
	if status != exitDone || !strings.Contains(out, "migration.lease             1m30s") || !strings.Contains(out, "log.level                   debug") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	out, _, status = alone(t, "config", "check", "--config", file, "-o", "json")
	var tree struct {
		Migration struct{ Lease string }
	}
	if err := json.Unmarshal([]byte(out), &tree); err != nil || status != exitDone || tree.Migration.Lease != "1m30s" {
		t.Errorf("status %d, %v, lease %q", status, err, tree.Migration.Lease)
	}
	if _, errs, status = alone(t, "config", "check", "--config", file+".none"); status != exitFailed || !strings.Contains(errs, ".none") {
		t.Errorf("a missing file: status %d\n%s", status, errs)
	}
	_, errs, status = alone(t, "config", "check", "--config", file, "--set", "tls.ca=/nonexistent/a", "--set", "tls.cert=/nonexistent/b", "--set", "tls.key=/nonexistent/c")
	if status != exitFailed || strings.Count(errs, "no such file") != 3 {
		t.Errorf("missing certificates: status %d\n%s", status, errs)
	}
}

func TestVersion(t *testing.T) {
	if out, _, status := alone(t, "version"); status != exitDone || !strings.HasPrefix(out, "wherry "+Version()+" (go1.") {
		t.Errorf("status %d, %q", status, out)
	}
}

// A shell asks the agent for names, and nothing breaks where none answers.
func TestCompletion(t *testing.T) {
	f := startFake(t)
	agent := "unix:" + f.socket
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"--agent", agent, "migrate", ""}, []string{"vm1\trunning", "web/front\tshutoff"}},
		{[]string{"--agent", agent, "--project", "web", "start", ""}, []string{"front\tshutoff"}},
		{[]string{"--agent", agent, "template", "info", ""}, []string{"rocky9", "old"}},
		{[]string{"--agent", agent, "operation", "wait", ""}, []string{"op-1\tmigrate vm1 running"}},
		{[]string{"--agent", "unix:/nonexistent", "migrate", ""}, nil},
		{[]string{"--agent", agent, "migrate", "vm1", ""}, nil},
	} {
		out, _, status := alone(t, append([]string{"__complete"}, test.args...)...)
		if status != exitDone {
			t.Errorf("%v: exit status %d", test.args, status)
		}
		for _, want := range test.want {
			if !strings.Contains("\n"+out, "\n"+want+"\n") {
				t.Errorf("%v: %q is missing in:\n%s", test.args, want, out)
			}
		}
		if test.want == nil && !strings.HasPrefix(out, ":") {
			t.Errorf("%v: offers\n%s", test.args, out)
		}
	}
}
