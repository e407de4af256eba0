package http_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is a server with fakes behind it, listening on a socket.
type agent struct {
	instances  fakeInstances
	actions    fakeActions
	migrations fakeMigrations
	rebuilds   fakeRebuilds
	incoming   fakeIncoming
	operations fakeOperations
	templates  fakeTemplates
	targets    fakeTargets
	hosts      fakeHosts
	shutdowns  fakeShutdowns
	leftovers  fakeLeftovers

	options wherry.Options
	socket  string
	server  *wherry.Server
	log     safeBuffer
	end     func()
	unread  time.Duration // for events; 0 is the server's own
	pace    time.Duration // for each MiB of content; 0 is the server's own
}

// safeBuffer is a log that a test may read while the server writes.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{socket: filepath.Join(t.TempDir(), "agent.sock")}
	a.hosts.ReadyFn = func(context.Context) error { return nil }
	a.options = wherry.Options{
		Instances: &a.instances, Actions: &a.actions, Migrations: &a.migrations, Rebuilds: &a.rebuilds, Incoming: &a.incoming,
		Operations: &a.operations, Templates: &a.templates, Targets: &a.targets, Hosts: &a.hosts, Shutdowns: &a.shutdowns, Leftovers: &a.leftovers,
		Log:     slog.New(slog.NewTextHandler(&a.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Version: "test",
	}
	return a
}

// serve starts the server; the test's end stops it and waits for it.
func (a *agent) serve(t *testing.T, l wherry.Listeners) {
	t.Helper()
	var err error
	if a.server, err = wherry.New(a.options); err != nil {
		t.Fatal(err)
	}
	if a.unread > 0 {
		a.server.SetUnread(a.unread)
	}
	if a.pace > 0 {
		a.server.SetPace(a.pace)
	}
	if l == (wherry.Listeners{}) {
		l.Socket = a.socket
	}
	if err := a.server.Listen(l); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.server.Serve(ctx) }()
	a.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := a.server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(a.end)
}

// stop ends the server in good order, and returns when it has ended.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	a.end()
}

// client connects over the socket; everything is held against the contract.
func (a *agent) client(t *testing.T, opts ...client.Option) *client.Client {
	t.Helper()
	return connect(t, "unix:"+a.socket, client.TLS{}, opts...)
}

func connect(t *testing.T, address string, files client.TLS, opts ...client.Option) *client.Client {
	t.Helper()
	judge := theContract(t)
	opts = append([]client.Option{client.WithRetry(time.Millisecond, 5*time.Second),
		client.WithTransport(func(next http.RoundTripper) http.RoundTripper {
			return &strict{next: next, t: t, contract: judge}
		})}, opts...)
	c, err := client.New(address, files, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// answered is what came back for a hand-made request.
type answered struct {
	*http.Response
	body []byte
}

// problem decodes the answer as a problem.
func (a answered) problem(t *testing.T) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("no problem in %q: %v", a.body, err)
	}
	return p
}

// raw sends a request that need not keep to the contract; its answer must.
func (a *agent) raw(t *testing.T, method, path, body string, header ...string) answered {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", a.socket)
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	judge := &strict{next: transport, t: t, contract: theContract(t), wild: true}
	resp, err := (&http.Client{Transport: judge}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{resp, b}
}
