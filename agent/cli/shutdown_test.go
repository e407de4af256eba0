package cli

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// Where the agent does not do it the command does, but not against its word,
// and not for another host.
func TestShutdownWithoutTheAgent(t *testing.T) {
	for name, c := range map[string]struct {
		args    []string
		dead    bool // the agent
		lost    bool // after it has accepted
		offline bool
		status  int
		says    string
	}{
		"there is none":        {dead: true, offline: true, says: "without the agent"},
		"its store is broken":  {args: []string{"--timeout", "1s"}, offline: true, says: "the store is damaged"},
		"it dies in between":   {lost: true, offline: true, says: errAgentLost.Error()},
		"nobody wants it":      {args: []string{"--offline"}, offline: true},
		"it does it":           {},
		"it says no":           {args: []string{"--timeout", "2s"}, status: exitFailed, says: "not you"},
		"it is another host's": {args: []string{"--agent", "http://127.0.0.1:1"}, status: exitUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t)
			f.lost = c.lost
			socket := f.socket
			if c.dead {
				socket += ".gone"
			}
			var out, errs bytes.Buffer
			a := newApp(strings.NewReader(""), &out, &errs)
			a.silence = 50 * time.Millisecond
			asked := 0
			a.offline = func(_ context.Context, _ config.Options, timeout time.Duration, tell func(api.ShutdownResult)) (api.ShutdownResult, error) {
				asked++
				if len(c.args) == 2 && c.args[0] == "--timeout" && (timeout <= 0 || timeout > time.Second) {
					t.Errorf("%s left; want what was asked for, at most", timeout)
				}
				r := api.ShutdownResult{By: "command", Instances: []api.ShutdownInstance{{Name: "vm", UUID: "u", Outcome: api.ShutdownStopped, Rung: api.RungAgent}}}
				tell(r)
				return r, nil
			}
			status := a.run(append([]string{"--agent", "unix:" + socket, "shutdown", "--yes"}, c.args...), make(chan os.Signal))
			if status != c.status || (asked == 1) != c.offline {
				t.Errorf("status %d, done by itself %d times; want %d, %v\n%s", status, asked, c.status, c.offline, errs.String())
			}
			if !strings.Contains(errs.String(), c.says) {
				t.Errorf("said %q; want %q", errs.String(), c.says)
			}
		})
	}
}

// Systemd is asked for more time while instances are being stopped.
func TestShutdownTellsSystemd(t *testing.T) {
	folder, err := os.MkdirTemp("", "wherry") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(folder, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(folder, "notify"))
	a := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	a.offline = func(context.Context, config.Options, time.Duration, func(api.ShutdownResult)) (api.ShutdownResult, error) {
		b := make([]byte, 1000)
		if err := socket.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Error(err)
		}
		n, err := socket.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), "EXTEND_TIMEOUT_USEC=45000000") {
			t.Errorf("systemd was told %q, %v", b[:n], err)
		}
		return api.ShutdownResult{}, nil
	}
	if status := a.run([]string{"shutdown", "--yes", "--offline"}, make(chan os.Signal)); status != exitDone {
		t.Errorf("status %d", status)
	}
}

// One instance that goes on is a failure, and is named.
func TestShutdownThatFails(t *testing.T) {
	var out, errs bytes.Buffer
	a := newApp(strings.NewReader(""), &out, &errs)
	a.offline = func(context.Context, config.Options, time.Duration, func(api.ShutdownResult)) (api.ShutdownResult, error) {
		return api.ShutdownResult{Instances: []api.ShutdownInstance{{Name: "vm", UUID: "u", Outcome: api.ShutdownFailed, Error: "its process waits for the kernel"}},
			Warnings: []string{"libvirt does not answer"}}, nil
	}
	if status := a.run([]string{"shutdown", "--yes", "--offline"}, make(chan os.Signal)); status != exitFailed {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"its process waits for the kernel", "warning: libvirt does not answer"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed %q; want %q", out.String(), want)
		}
	}
}

// A configuration that cannot be read keeps no host up.
func TestShutdownWithABrokenConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wherry.yaml")
	if err := os.WriteFile(file, []byte("}{"), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	a := newApp(strings.NewReader(""), &bytes.Buffer{}, &errs)
	if c := a.configOrDefault(config.Options{File: file}); c.StateDir != config.Default().StateDir || !strings.Contains(errs.String(), "going on") {
		t.Errorf("%+v, said %q", c, errs.String())
	}
}

const hookXML = `<domain type='kvm'><name>vm</name><uuid>5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001</uuid></domain>`

// hookFolder is a host's state with one record, and its configuration.
func hookFolder(t *testing.T, socket string) (file string, records record.Dir) {
	t.Helper()
	dir := t.TempDir()
	file, records = filepath.Join(dir, "wherry.yaml"), record.Dir(filepath.Join(dir, "records"))
	text := "state_dir: " + dir + "\nlisten: {socket: " + socket + "}\nhost: {name: a}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := api.Record{Project: "default", Name: "vm", UUID: "5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001", PowerState: "running"}
	if err := records.Write(r); err != nil {
		t.Fatal(err)
	}
	return file, records
}

// The hook tells the agent and prints nothing, whatever it is called with.
func TestHookTellsTheAgent(t *testing.T) {
	f := startFake(t)
	file, _ := hookFolder(t, f.socket)
	called, err := process.Own() // libvirt makes a process for each call, which is this one here
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		words, sent string
	}{
		{"vm release end -", `hook {"name":"vm","uuid":"5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001","operation":"release","called":"` + called.String() + `"}`},
		{"vm migrate begin -", ""},
		{"vm prepare begin -", ""},
		{"vm", ""},
		{"--strange -x", ""},
		{"", ""},
	} {
		var out, errs bytes.Buffer
		a := newApp(strings.NewReader(hookXML), &out, &errs)
		status := a.run(append([]string{"hook", "--config", file, "--"}, strings.Fields(c.words)...), make(chan os.Signal))
		if sent := strings.Join(f.sent(), ";"); status != exitDone || out.Len() != 0 || sent != c.sent {
			t.Errorf("%q: status %d, printed %q %q, sent %q; want %q", c.words, status, out.String(), errs.String(), sent, c.sent)
		}
	}
}

// TestMain is the program too: the hook starts itself again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hook" {
		os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// Without an agent the work is done by a process of its own, soon.
func TestHookWithoutAnAgent(t *testing.T) {
	file, records := hookFolder(t, "/nowhere/agent.sock")
	a := newApp(strings.NewReader(hookXML), &bytes.Buffer{}, &bytes.Buffer{})
	began := time.Now()
	if status := a.run([]string{"hook", "--config", file, "--", "vm", "release", "end", "-"}, make(chan os.Signal)); status != exitDone {
		t.Errorf("status %d", status)
	}
	if took := time.Since(began); took > hookTimeout+time.Second {
		t.Errorf("libvirt waited %s", took)
	}
	// The work goes on in a process of its own, which says nothing to this one.
	late, look := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer look.Stop()
	for {
		r, err := records.Read(api.Ref{Name: "vm"})
		_, owed := os.Stat(filepath.Join(filepath.Dir(file), "cleanup", "default", "vm.json"))
		if err == nil && r.PowerState == "stopped" && errors.Is(owed, os.ErrNotExist) {
			return
		}
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("record %+v, %v, note %v; want it cleaned up after", r, err, owed)
		}
	}
}
