package monitor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/hypervisor/monitor"
)

const uuid = "5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001"

// qemu serves one monitor with the given lines; "" waits for a command. It gives
// the host, and what was asked.
func qemu(t *testing.T, script ...string) (monitor.Host, <-chan string) {
	t.Helper()
	folder := t.TempDir()
	socket := filepath.Join(folder, "monitor.sock")
	state := fmt.Sprintf(`<domstatus state='running' pid='1'><monitor path='%s' type='unix'/><domain type='kvm' id='1'><name>vm</name><uuid>%s</uuid></domain></domstatus>`, socket, strings.ToUpper(uuid))
	if err := os.WriteFile(filepath.Join(folder, "vm.xml"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	asked := make(chan string, 10)
	go func() {
		defer close(asked)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		lines := bufio.NewScanner(conn)
		for _, line := range script {
			if line != "" {
				fmt.Fprintln(conn, line)
				continue
			}
			if !lines.Scan() {
				return
			}
			asked <- lines.Text()
		}
		lines.Scan() // until the other side closes
	}()
	return monitor.Host{Run: folder}, asked
}

const greeting = `{"QMP": {"version": {}, "capabilities": []}}`

func TestCommands(t *testing.T) {
	for command, ask := range map[string]func(monitor.Host) error{
		"system_powerdown": func(h monitor.Host) error { return h.Press(t.Context(), "vm", uuid) },
		"cont":             func(h monitor.Host) error { return h.Resume(t.Context(), "vm", uuid) },
		"system_wakeup":    func(h monitor.Host) error { return h.Wakeup(t.Context(), "vm", uuid) },
		"query-status": func(h monitor.Host) error {
			status, err := h.Status(t.Context(), "vm", uuid)
			if err == nil && status != "shutdown" {
				err = fmt.Errorf("status %q", status)
			}
			return err
		},
	} {
		t.Run(command, func(t *testing.T) {
			h, asked := qemu(t, greeting, "", `{"return": {}}`, "", `{"event": "POWERDOWN"}`, `{"return": {"running": false, "status": "shutdown"}}`)
			if err := ask(h); err != nil {
				t.Error(err)
			}
			for _, want := range []string{`{"execute":"qmp_capabilities"}`, fmt.Sprintf(`{"execute":%q}`, command)} {
				if got := <-asked; got != want {
					t.Errorf("asked %s; want %s", got, want)
				}
			}
		})
	}
}

// An answer without a state is none.
func TestNoStatus(t *testing.T) {
	for _, reply := range []string{`{}`, `[]`, `{"status": 1}`} {
		h, _ := qemu(t, greeting, "", `{"return": {}}`, "", `{"return": `+reply+`}`)
		if status, err := h.Status(t.Context(), "vm", uuid); err == nil || status != "" {
			t.Errorf("%s: status %q, error %v", reply, status, err)
		}
	}
}

// What does not go as it should is told, in QEMU's own words, and in time.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		script []string
		words  string
	}{
		"refused":            {[]string{greeting, "", `{"return": {}}`, "", `{"error": {"class": "GenericError", "desc": "not now"}}`}, "not now"},
		"not a monitor":      {[]string{`{"hello": 1}`}, "no monitor"},
		"no JSON":            {[]string{`hello`}, "no greeting"},
		"held by libvirt":    {nil, "deadline"},
		"gone in the middle": {[]string{greeting, "", `{"return": {}}`, "", `{"ret`}, "string literal"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := qemu(t, c.script...)
			limit := 10 * time.Second
			if c.script == nil {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := h.Press(ctx, "vm", uuid); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %v; want %q", err, c.words)
			}
		})
	}
}

// Another instance of the same name is not pressed.
func TestWhoseMonitor(t *testing.T) {
	h, asked := qemu(t, greeting)
	if err := h.Press(t.Context(), "vm", "00000000-0000-0000-0000-000000000000"); err == nil || !strings.Contains(err.Error(), uuid[:8]) && !strings.Contains(err.Error(), strings.ToUpper(uuid[:8])) {
		t.Errorf("error %v; want the UUID that was found", err)
	}
	if err := h.Press(t.Context(), "other", uuid); !errors.Is(err, monitor.ErrNone) {
		t.Errorf("error %v; want none", err)
	}
	for _, name := range []string{"", "../vm", "a\x00b"} {
		if err := h.Press(t.Context(), name, uuid); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
	select {
	case got := <-asked:
		t.Errorf("asked %q", got)
	default:
	}
}

func FuzzState(f *testing.F) {
	f.Add(`<domstatus><monitor path='/x' type='unix'/><domain><uuid>u</uuid></domain></domstatus>`)
	f.Add(`<domstatus><monitor type='pty'/>`)
	f.Add(`<domain/>`)
	f.Fuzz(func(t *testing.T, text string) {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "vm.xml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := (monitor.Host{Run: folder}).Press(ctx, "vm", uuid); err == nil {
			t.Error("no monitor was there, and it was pressed")
		}
	})
}
