package http_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// journal serves events from a list: what lies after the id, then the end of
// the stream, or silence until the reader leaves.
func journal(list []api.Event, per int, stay bool) func(context.Context, uint64) (<-chan api.Event, error) {
	return func(ctx context.Context, after uint64) (<-chan api.Event, error) {
		ch := make(chan api.Event)
		go func() {
			defer close(ch)
			sent := 0
			for _, e := range list {
				if e.ID <= after || sent == per {
					continue
				}
				select {
				case ch <- e:
					sent++
				case <-ctx.Done():
					return
				}
			}
			if stay {
				<-ctx.Done()
			}
		}()
		return ch, nil
	}
}

func someEvents(n int) []api.Event {
	var out []api.Event
	for i := range n {
		out = append(out, api.Event{ID: uint64(i + 1), Kind: "operation", At: aTime, Project: "default", Instance: "vm1", Operation: &anOp})
	}
	return out
}

var errEnough = errors.New("enough")

// collect reads n events.
func collect(t *testing.T, c *client.Client, after uint64, n int) []api.Event {
	t.Helper()
	var got []api.Event
	err := c.Events(t.Context(), after, func(e api.Event) error {
		if got = append(got, e); len(got) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("after %d events: %v", len(got), err)
	}
	return got
}

func TestEventsAreReplayedFromAnId(t *testing.T) {
	a := newAgent(t)
	all := someEvents(5)
	a.operations.EventsFn = journal(all, 100, true)
	a.serve(t, wherry.Listeners{})
	if d := cmp.Diff(all[2:], collect(t, a.client(t), 2, 3), sameOnTheWire); d != "" {
		t.Errorf("sent (-) and got (+): %s", d)
	}
}

// TestEventsSurviveBrokenStreams has a server that ends each stream after two
// events, as it does with a slow reader.
func TestEventsSurviveBrokenStreams(t *testing.T) {
	a := newAgent(t)
	all := someEvents(7)
	a.operations.EventsFn = journal(all, 2, false)
	a.serve(t, wherry.Listeners{})
	if d := cmp.Diff(all, collect(t, a.client(t), 0, 7), sameOnTheWire); d != "" {
		t.Errorf("sent (-) and got (+): %s", d)
	}
}

func TestEventsSurviveARestart(t *testing.T) {
	a := newAgent(t)
	all := someEvents(4)
	a.operations.EventsFn = journal(all[:2], 100, true)
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	var got []api.Event
	err := c.Events(t.Context(), 0, func(e api.Event) error {
		got = append(got, e)
		switch len(got) {
		case 2:
			a.stop(t) // waits for the stream to end
			a.operations.EventsFn = journal(all, 100, true)
			a.serve(t, wherry.Listeners{})
		case 4:
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if d := cmp.Diff(all, got, sameOnTheWire); d != "" {
		t.Errorf("sent (-) and got (+): %s", d)
	}
}

func TestEventsEndWithTheirContext(t *testing.T) {
	a := newAgent(t)
	a.operations.EventsFn = journal(someEvents(1), 100, true)
	a.serve(t, wherry.Listeners{})
	ctx, cancel := context.WithCancel(t.Context())
	err := a.client(t).Events(ctx, 0, func(api.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestEventsGiveUpOnAnAgentThatStaysAway(t *testing.T) {
	c := connect(t, "unix:"+newAgent(t).socket, client.TLS{}, client.WithRetry(time.Millisecond, 10*time.Millisecond))
	err := c.Events(t.Context(), 0, func(api.Event) error { return nil })
	if e, ok := errors.AsType[*client.Unreachable](err); !ok || e.Stage != client.StageDial {
		t.Errorf("got %v", err)
	}
}

// TestEventStreamOnTheWire reads the bytes, for readers in other languages.
func TestEventStreamOnTheWire(t *testing.T) {
	a := newAgent(t)
	a.options.Heartbeat = time.Millisecond
	var after atomic.Uint64
	events := []api.Event{{ID: 8, Kind: "template", At: aTime, Detail: "line\nbreak"}, {Kind: "host", At: aTime}}
	a.operations.EventsFn = func(_ context.Context, id uint64) (<-chan api.Event, error) {
		after.Store(id)
		ch := make(chan api.Event, len(events))
		for _, e := range events {
			ch <- e
		}
		return ch, nil
	}
	a.serve(t, wherry.Listeners{})
	conn, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 7\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("sent as %q", resp.Header.Get("Content-Type"))
	}
	var data []string
	var ids, kinds []string
	beats := 0
	for lines := bufio.NewScanner(resp.Body); beats < 2 && lines.Scan(); {
		line := lines.Text()
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			data = append(data, text)
		}
		if text, ok := strings.CutPrefix(line, "id: "); ok {
			ids = append(ids, text)
		}
		if text, ok := strings.CutPrefix(line, "event: "); ok {
			kinds = append(kinds, text)
		}
		if line == ": heartbeat" && len(data) == len(events) {
			beats++
		}
	}
	if after.Load() != 7 || beats != 2 || len(data) != 2 {
		t.Fatalf("after %d: %d heartbeats, data %q", after.Load(), beats, data)
	}
	if d := cmp.Diff([]string{"8"}, ids); d != "" {
		t.Errorf("ids: %s", d)
	}
	if d := cmp.Diff([]string{"template", "host"}, kinds); d != "" {
		t.Errorf("kinds: %s", d)
	}
	schema := theContract(t).doc.Components.Schemas["Event"].Value
	for i, text := range data {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := schema.VisitJSON(v); err != nil {
			t.Errorf("event %d breaks the contract: %v", i, err)
		}
	}
}

// TestAReaderThatDoesNotReadIsDropped floods a connection that nobody reads:
// the server lets go of it, and of its events.
func TestAReaderThatDoesNotReadIsDropped(t *testing.T) {
	a := newAgent(t)
	a.unread = 10 * time.Millisecond
	dropped := make(chan struct{})
	a.operations.EventsFn = func(ctx context.Context, _ uint64) (<-chan api.Event, error) {
		ch := make(chan api.Event)
		go func() {
			defer close(dropped)
			for {
				select {
				case ch <- api.Event{ID: 1, Kind: "host", At: aTime, Detail: strings.Repeat("x", 64<<10)}:
				case <-ctx.Done():
					return
				}
			}
		}()
		return ch, nil
	}
	a.serve(t, wherry.Listeners{})
	conn, err := net.Dial("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-dropped:
	case <-time.After(30 * time.Second):
		t.Error("the reader is still served")
	}
}

func TestBadLastEventID(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	if got := a.raw(t, "GET", "/v1/events", "", "Last-Event-ID", "x"); got.StatusCode != http.StatusBadRequest {
		t.Errorf("answered %s", got.Status)
	}
}

func ended(status string) api.Operation {
	op := anOp
	op.Status = status
	return op
}

func TestWaitOperationFollowsToTheEnd(t *testing.T) {
	a := newAgent(t)
	states := []api.Operation{anOp, anOp, ended(api.StatusFailed)}
	var mu sync.Mutex
	a.operations.WaitFn = func(context.Context, string, time.Duration) (api.Operation, error) {
		mu.Lock()
		defer mu.Unlock()
		op := states[0]
		states = states[1:]
		return op, nil
	}
	a.serve(t, wherry.Listeners{})
	var seen []string
	op, err := a.client(t).WaitOperation(t.Context(), "op1", func(o api.Operation) { seen = append(seen, o.Status) })
	if err != nil || op.Status != api.StatusFailed {
		t.Errorf("got %q, %v", op.Status, err)
	}
	if d := cmp.Diff([]string{"running", "running", "failed"}, seen); d != "" {
		t.Errorf("seen: %s", d)
	}
}

// TestWaitOperationSurvivesARestart stops the agent in the middle of a wait,
// leaves its libvirt down for a moment, and then lets the operation end.
func TestWaitOperationSurvivesARestart(t *testing.T) {
	a := newAgent(t)
	waiting := make(chan struct{})
	a.operations.WaitFn = func(ctx context.Context, _ string, _ time.Duration) (api.Operation, error) {
		close(waiting)
		<-ctx.Done()
		return api.Operation{}, ctx.Err()
	}
	a.operations.GetFn = func(context.Context, string) (api.Operation, error) { return anOp, nil }
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	type result struct {
		op  api.Operation
		err error
	}
	done := make(chan result)
	go func() {
		op, err := c.WaitOperation(t.Context(), "op1", nil)
		done <- result{op, err}
	}()
	<-waiting
	a.stop(t)
	var asked atomic.Int32
	a.operations.WaitFn = func(context.Context, string, time.Duration) (api.Operation, error) {
		if asked.Add(1) == 1 {
			return api.Operation{}, api.NewProblem("libvirt-down", "no connection")
		}
		return ended(api.StatusSucceeded), nil
	}
	a.serve(t, wherry.Listeners{})
	if got := <-done; got.err != nil || got.op.Status != api.StatusSucceeded {
		t.Errorf("got %q, %v", got.op.Status, got.err)
	}
}

func TestWaitOperationEndsAtOnceWhereWaitingIsOfNoUse(t *testing.T) {
	a := newAgent(t)
	a.operations.WaitFn = func(context.Context, string, time.Duration) (api.Operation, error) {
		return api.Operation{}, api.NewProblem("not-found", "no operation %q", "op1")
	}
	a.serve(t, wherry.Listeners{})
	if _, err := a.client(t).WaitOperation(t.Context(), "op1", nil); api.CodeOf(err) != "not-found" {
		t.Errorf("got %v", err)
	}
}

func TestWaitOperationEndsWithItsContext(t *testing.T) {
	a := newAgent(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.operations.WaitFn = func(request context.Context, _ string, _ time.Duration) (api.Operation, error) {
		cancel()
		<-request.Done() // the server notices that the caller left
		return api.Operation{}, request.Err()
	}
	a.serve(t, wherry.Listeners{})
	if _, err := a.client(t).WaitOperation(ctx, "op1", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestShutdownLetsRequestsFinish has a request under way when the server ends.
func TestShutdownLetsRequestsFinish(t *testing.T) {
	a := newAgent(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	a.hosts.HostFn = func(ctx context.Context) (api.Host, error) {
		close(entered)
		<-leave
		return aHost, ctx.Err()
	}
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	done := make(chan error)
	go func() { _, err := c.Host(t.Context()); done <- err }()
	<-entered
	go func() {
		// The socket is gone once the shutdown has begun.
		for c.Live(t.Context()) == nil {
			runtime.Gosched()
		}
		close(leave)
	}()
	a.stop(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
