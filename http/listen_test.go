package http_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/certs"
	"github.com/wherry-kvm/wherry/http/client"
)

func newServer(t *testing.T, a *agent) *wherry.Server {
	t.Helper()
	s, err := wherry.New(a.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestEveryServiceIsNeeded(t *testing.T) {
	a := newAgent(t)
	a.options.Targets = nil
	if _, err := wherry.New(a.options); err == nil {
		t.Error("a missing service was accepted")
	}
	a.options.Targets = (*fakeTargets)(nil)
	if _, err := wherry.New(a.options); err == nil {
		t.Error("a nil service was accepted")
	}
}

func TestSocketIsForItsGroup(t *testing.T) {
	a := newAgent(t)
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	if err := newServer(t, a).Listen(wherry.Listeners{Socket: a.socket, Group: "no-such-group"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(a.socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestSocketOfAGroup(t *testing.T) {
	a := newAgent(t)
	// The group of the caller itself: anybody may give a file to that one.
	if err := newServer(t, a).Listen(wherry.Listeners{Socket: a.socket, Group: "root"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(a.socket)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); os.Getuid() == 0 && st.Gid != 0 || info.Mode().Perm() != 0o660 {
		t.Errorf("group %d, mode %v", st.Gid, info.Mode())
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	a := newAgent(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as after SIGKILL
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a.serve(t, wherry.Listeners{})
	if err := a.client(t).Live(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLiveSocketIsLeftAlone(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	err := newServer(t, a).Listen(wherry.Listeners{Socket: a.socket})
	if err == nil || !strings.Contains(err.Error(), "another agent answers there") {
		t.Errorf("a second agent: %v", err)
	}
	if err := a.client(t).Live(t.Context()); err != nil {
		t.Errorf("the first agent: %v", err)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	a := newAgent(t)
	if err := os.WriteFile(a.socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newServer(t, a).Listen(wherry.Listeners{Socket: a.socket}); err == nil {
		t.Error("a file was replaced")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(a.socket, link); err != nil {
		t.Fatal(err)
	}
	if err := newServer(t, a).Listen(wherry.Listeners{Socket: link}); err == nil {
		t.Error("a link was replaced")
	}
	if b, err := os.ReadFile(a.socket); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestSocketIsRemovedAtTheEnd(t *testing.T) {
	a := newAgent(t)
	s := newServer(t, a)
	if err := s.Listen(wherry.Listeners{Socket: a.socket}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(a.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestOpenListenersAreRefused(t *testing.T) {
	files := newAuthority(t, "ca").issue("server", soon())
	for _, row := range []struct {
		name string
		l    wherry.Listeners
		ok   bool
	}{
		{"plain on loopback", wherry.Listeners{Address: "127.0.0.1:0"}, true},
		{"plain on loopback, IPv6", wherry.Listeners{Address: "[::1]:0"}, true},
		{"plain on localhost", wherry.Listeners{Address: "localhost:0"}, true},
		{"plain everywhere", wherry.Listeners{Address: ":0"}, false},
		{"plain on all IPv4", wherry.Listeners{Address: "0.0.0.0:0"}, false},
		{"plain everywhere, insecure", wherry.Listeners{Address: ":0", Insecure: true}, true},
		{"no CA", wherry.Listeners{Address: ":0", Files: certs.Files{Cert: files.Cert, Key: files.Key}}, false},
		{"no CA on loopback", wherry.Listeners{Address: "127.0.0.1:0", Files: certs.Files{Cert: files.Cert, Key: files.Key}}, true},
		{"no CA, insecure", wherry.Listeners{Address: ":0", Files: certs.Files{Cert: files.Cert, Key: files.Key}, Insecure: true}, true},
		{"mutual TLS", wherry.Listeners{Address: ":0", Files: files}, true},
		{"no key", wherry.Listeners{Address: "127.0.0.1:0", Files: certs.Files{CA: files.CA, Cert: files.Cert}}, false},
		{"no certificate", wherry.Listeners{Address: "127.0.0.1:0", Files: certs.Files{CA: files.CA, Key: files.Key}}, false},
		{"CA alone", wherry.Listeners{Address: "127.0.0.1:0", Files: certs.Files{CA: files.CA}, Insecure: true}, false},
		{"missing file", wherry.Listeners{Address: "127.0.0.1:0", Files: certs.Files{CA: files.CA + "x", Cert: files.Cert, Key: files.Key}}, false},
		{"key as certificate", wherry.Listeners{Address: "127.0.0.1:0", Files: certs.Files{CA: files.CA, Cert: files.Key, Key: files.Key}}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := newServer(t, newAgent(t)).Listen(row.l); (err == nil) != row.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAllListenersOrNone(t *testing.T) {
	a := newAgent(t)
	if err := newServer(t, a).Listen(wherry.Listeners{Socket: a.socket, Address: ":0"}); err == nil {
		t.Fatal("an open listener was accepted")
	}
	if _, err := os.Lstat(a.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stayed: %v", err)
	}
}

func TestPlainLoopbackIsManagement(t *testing.T) {
	a := newAgent(t)
	a.hosts.HostFn = func(context.Context) (api.Host, error) { return aHost, nil }
	a.serve(t, wherry.Listeners{Address: "127.0.0.1:0"})
	if _, err := connect(t, "http://"+a.server.Addrs()[0].String(), client.TLS{}).Host(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProbesHaveAListenerOfTheirOwn(t *testing.T) {
	a := newAgent(t)
	a.options.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("up 1\n")) })
	a.hosts.ReadyFn = func(context.Context) error { return api.NewProblem("libvirt-down", "no connection") }
	a.serve(t, wherry.Listeners{Socket: a.socket, Probes: "127.0.0.1:0"})
	probes := connect(t, "http://"+a.server.Addrs()[1].String(), client.TLS{})
	for name, c := range map[string]*client.Client{"own": probes, "socket": a.client(t)} {
		if err := c.Live(t.Context()); err != nil {
			t.Errorf("%s: live: %v", name, err)
		}
		if p, ok := errors.AsType[*api.Problem](c.Ready(t.Context())); !ok || p.Code != "libvirt-down" || p.Status != http.StatusServiceUnavailable {
			t.Errorf("%s: ready: %v", name, p)
		}
		if b, err := c.Metrics(t.Context()); err != nil || string(b) != "up 1\n" {
			t.Errorf("%s: metrics: %q, %v", name, b, err)
		}
	}
	if _, err := probes.Host(t.Context()); api.CodeOf(err) != "not-found" {
		t.Errorf("the host from the probes' listener: %v", err)
	}
}

func TestAnUnreadyHostIs503WhateverTheCause(t *testing.T) {
	a := newAgent(t)
	a.hosts.ReadyFn = func(context.Context) error { return errors.New("disk full") }
	a.serve(t, wherry.Listeners{})
	p, ok := errors.AsType[*api.Problem](a.client(t).Ready(t.Context()))
	if !ok || p.Code != "not-ready" || p.Detail != "disk full" {
		t.Errorf("got %v", p)
	}
}
