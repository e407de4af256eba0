package http_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/certs"
	"github.com/wherry-kvm/wherry/http/client"
)

// serveTLS starts an agent behind mutual TLS and gives its URL.
func (a *agent) serveTLS(t *testing.T, files certs.Files) string {
	t.Helper()
	a.serve(t, wherry.Listeners{Address: "127.0.0.1:0", Files: files})
	return "https://" + a.server.Addrs()[0].String()
}

// TestRoles sends every request under every role.
func TestRoles(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newAgent(t)
	// Services that refuse: what gets that far was let through.
	reached := api.NewProblem("conflict", "reached")
	a.hosts.HostFn = func(context.Context) (api.Host, error) { return api.Host{}, reached }
	url := a.serveTLS(t, ca.issue("server", soon(), "wherry-peer"))
	peerRoutes := a.server.PeerRoutes()
	if len(peerRoutes) != 10 {
		t.Errorf("%d routes are open to peers, not 10", len(peerRoutes))
	}
	for _, role := range []struct {
		name  string
		units []string
		admit func(route [2]string) bool
	}{
		{"management", []string{"wherry-management"}, func([2]string) bool { return true }},
		{"both", []string{"wherry-peer", "wherry-management"}, func([2]string) bool { return true }},
		{"peer", []string{"wherry-peer"}, func(route [2]string) bool {
			return strings.HasPrefix(route[1], "/v1/incoming") || route[1] == "/v1/targets" || strings.HasSuffix(route[1], "/content")
		}},
		{"other", []string{"operations"}, func([2]string) bool { return false }},
		{"none", nil, func([2]string) bool { return false }},
	} {
		t.Run(role.name, func(t *testing.T) {
			send := sender(t, ca.issue(role.name, soon(), role.units...))
			for _, route := range a.server.Routes() {
				// Refused for its parameter where it is let through, so that no
				// service is needed.
				status, body := send(route[0], url+strings.NewReplacer(":name", "vm1", ":id", "x").Replace(route[1])+"?nonsense=1")
				want := http.StatusForbidden
				if role.admit(route) {
					want = http.StatusBadRequest
				}
				if status != want {
					t.Errorf("%s %s: %d %s, not %d", route[0], route[1], status, body, want)
				}
			}
		})
	}
}

// sender sends hand-made requests with a certificate.
func sender(t *testing.T, files client.TLS) func(method, url string) (int, string) {
	t.Helper()
	store, err := certs.Open(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: store.Client("localhost")}
	t.Cleanup(transport.CloseIdleConnections)
	return func(method, url string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
}

func TestARefusedRoleIsToldWhy(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newAgent(t)
	url := a.serveTLS(t, ca.issue("server", soon()))
	for _, row := range []struct{ unit, want string }{
		{"wherry-peer", `"b.example" is a peer's`},
		{"wherry-operator", `"b.example" has the organisational units ["wherry-operator"]; it needs "wherry-management" or "wherry-peer"`},
	} {
		_, err := connect(t, url, ca.issue("b.example", soon(), row.unit)).Host(t.Context())
		p, ok := errors.AsType[*api.Problem](err)
		if !ok || p.Code != "forbidden" || !strings.Contains(p.Detail, row.want) {
			t.Errorf("%s: %v", row.unit, err)
		}
	}
}

func TestStrangersGetNoAnswer(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	a := newAgent(t)
	url := a.serveTLS(t, ca.issue("server", soon()))
	foreign := stranger.issue("b", soon(), "wherry-management")
	foreign.CA = ca.path // it trusts the server; the server does not trust it
	for name, files := range map[string]client.TLS{
		"no certificate":       {CA: ca.path},
		"of another authority": foreign,
		"expired":              ca.issue("old", time.Now().Add(-time.Minute), "wherry-management"),
	} {
		err := connect(t, url, files).Live(t.Context())
		if e, ok := errors.AsType[*client.Unreachable](err); !ok || e.Stage != client.StageTLS {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClientTrustsNoStranger(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	a := newAgent(t)
	url := a.serveTLS(t, stranger.issue("server", soon()))
	err := connect(t, url, ca.issue("a", soon(), "wherry-peer")).Live(t.Context())
	e, ok := errors.AsType[*client.Unreachable](err)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !ok || e.Stage != client.StageTLS || !unknown {
		t.Errorf("got %v", err)
	}
}

func TestOlderTLSIsRefused(t *testing.T) {
	ca := newAuthority(t, "ca")
	a := newAgent(t)
	url := a.serveTLS(t, ca.issue("server", soon()))
	store, err := certs.Open(ca.issue("m", soon(), "wherry-management"), nil)
	if err != nil {
		t.Fatal(err)
	}
	config := store.Client("localhost")
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	err = connect(t, url, client.TLS{}, client.WithTLSConfig(config)).Live(t.Context())
	if e, ok := errors.AsType[*client.Unreachable](err); !ok || e.Stage != client.StageTLS {
		t.Errorf("got %v", err)
	}
}

// TestRenewedCertificates replaces both sides' certificates, authority and
// all, under a running server and client.
func TestRenewedCertificates(t *testing.T) {
	before, after := newAuthority(t, "ca"), newAuthority(t, "ca")
	a := newAgent(t)
	server, manager := before.issue("server", soon()), before.issue("m", soon(), "wherry-management")
	url := a.serveTLS(t, server)
	c := connect(t, url, manager)
	if err := c.Live(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Close() // the next call makes a connection of its own
	for old, renewed := range map[client.TLS]client.TLS{
		server:  after.issue("server", soon()),
		manager: after.issue("m", soon(), "wherry-management"),
	} {
		for from, to := range map[string]string{renewed.CA: old.CA, renewed.Cert: old.Cert, renewed.Key: old.Key} {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to+".new", b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(to+".new", to); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Live(t.Context()); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	stale := before.issue("late", soon(), "wherry-management")
	stale.CA = manager.CA
	if err := connect(t, url, stale).Live(t.Context()); err == nil {
		t.Error("a certificate of the old authority is still accepted")
	}
}

func TestWebPagesAreRefused(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{Socket: a.socket})
	got := a.raw(t, "POST", "/v1/instances/vm1/start", "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	if got.StatusCode != http.StatusForbidden {
		t.Errorf("answered %s", got.Status)
	}
}

func TestPeerRoutesAreTheContracts(t *testing.T) {
	server, err := wherry.New(newAgent(t).options)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range server.PeerRoutes() {
		if slices.Contains([]string{"/v1/host", "/v1/instances", "/v1/templates"}, route[1]) {
			t.Errorf("%v is open to peers", route)
		}
	}
}
