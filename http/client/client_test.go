package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// Most of this package is tested against the real server, in package http.
// Here are the agents that are none.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAddresses(t *testing.T) {
	for _, row := range []struct {
		address string
		opts    []client.Option
		ok      bool
	}{
		{"unix:/run/wherry/agent.sock", nil, true},
		{"unix:agent.sock", nil, true},
		{"unix:", nil, false},
		{"https://wherry-b", nil, true},
		{"https://wherry-b:8470/", nil, true},
		{"https://[fd77::2]:8470", nil, true},
		{"https://", nil, false},
		{"https://b/v1", nil, false},
		{"https://u:p@b", nil, false},
		{"https://b?x=1", nil, false},
		{"http://127.0.0.1:8470", nil, true},
		{"http://localhost:8470", nil, true},
		{"http://[::1]:8470", nil, true},
		{"http://10.77.0.2:8470", nil, false},
		{"http://wherry-b:8470", []client.Option{client.WithInsecure()}, true},
		{"ftp://b", nil, false},
		{"wherry-b", nil, false},
		{"", nil, false},
	} {
		if _, err := client.New(row.address, client.TLS{}, row.opts...); (err == nil) != row.ok {
			t.Errorf("%q: %v", row.address, err)
		}
	}
}

// The environment's proxy is for images of the world; agents are never behind
// it.
func TestNoProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the proxy was asked for %s", r.URL) }))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	c, err := client.New("http://192.0.2.1:1", client.TLS{}, client.WithInsecure()) // RFC 5737: nobody
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.Live(ctx); err == nil {
		t.Error("somebody answered")
	}
}

func TestWrongFilesAreToldAtOnce(t *testing.T) {
	if _, err := client.New("https://b", client.TLS{CA: "/no/such/ca.pem"}); err == nil || !strings.Contains(err.Error(), "/no/such/ca.pem") {
		t.Errorf("got %v", err)
	}
}

// impostor serves what no agent would, and a client of it.
func impostor(t *testing.T, h http.HandlerFunc, opts ...client.Option) *client.Client {
	t.Helper()
	server := httptest.NewServer(h)
	c, err := client.New(server.URL, client.TLS{}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Close() })
	return c
}

func TestAnswersOfNoAgent(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		says   string
	}{
		{"page of a proxy", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>Bad gateway", http.StatusBadGateway)
		}, "502 Bad Gateway"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		}, "302 Found"},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, "something else than api.Host"},
		{"empty problem", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", api.MediaTypeProblem)
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, "{}")
		}, "409 Conflict"},
		{"endless answer", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, "more than"},
	} {
		_, err := impostor(t, row.answer).Host(t.Context())
		if api.CodeOf(err) != "peer-failed" || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestALostAnswerIsUnreachable(t *testing.T) {
	c := impostor(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err := c.Start(t.Context(), api.Ref{Name: "vm1"}, "")
	if e, ok := errors.AsType[*client.Unreachable](err); !ok || e.Stage != client.StageExchange {
		t.Errorf("got %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"http://" + address, "https://" + address, "unix:" + t.TempDir() + "/none"} {
		c, err := client.New(a, client.TLS{})
		if err != nil {
			t.Fatal(err)
		}
		e, ok := errors.AsType[*client.Unreachable](c.Live(t.Context()))
		if !ok || e.Stage != client.StageDial || e.Address != a {
			t.Errorf("%s: %v", a, e)
		}
	}
}

func TestTheCallersDeadlineIsTheCallers(t *testing.T) {
	c := impostor(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := c.Host(ctx)
	if _, ok := errors.AsType[*client.Unreachable](err); ok || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestRepeatableCallsSurviveAnIdleConnectionThatDied has a server that closes
// each connection after its first answer without saying so.
func TestRepeatableCallsSurviveAnIdleConnectionThatDied(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := conn.Read(make([]byte, 64<<10)); err == nil {
				served.Add(1)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	c, err := client.New("http://"+l.Addr().String(), client.TLS{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for range 20 {
		if _, err := c.Renew(t.Context(), "in1"); err != nil {
			t.Fatal(err)
		}
	}
	if served.Load() != 20 {
		t.Errorf("%d requests arrived", served.Load())
	}
}

func TestUnreadableEvents(t *testing.T) {
	for name, body := range map[string]string{
		"no JSON":    "data: hello\n\n",
		"wrong type": "data: {\"id\":\"x\"}\n\n",
		"endless":    "data: " + strings.Repeat("x", 5<<20) + "\n\n",
	} {
		c := impostor(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		err := c.Events(t.Context(), 0, func(api.Event) error { t.Errorf("%s became an event", name); return nil })
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestEventsInEveryForm reads what the standard allows and agents do not send.
func TestEventsInEveryForm(t *testing.T) {
	const body = ": comment\r\n\r\nid: 1\r\nevent: host\r\ndata: {\"id\":1,\r\ndata:\"kind\":\"host\"}\r\n\r\nretry: 5\n\n\nunknown: x\ndata:{\"id\":2,\"kind\":\"host\"}\n\ndata: {\"id\":3"
	stop := errors.New("stop")
	var ids []uint64
	c := impostor(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	err := c.Events(t.Context(), 0, func(e api.Event) error {
		ids = append(ids, e.ID)
		if e.ID == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || len(ids) != 2 {
		t.Errorf("got %v, %v", ids, err)
	}
}
