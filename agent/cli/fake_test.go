package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
)

// fake is an agent whose answers are made up, behind the real server: what the
// server refuses, a command must not send.
type fake struct {
	socket string

	mu       sync.Mutex
	requests []string                   // JSON of each request that changes or plans something
	steps    map[string][]api.Operation // what an operation still goes through
	cancels  chan string                // ids, as they are cancelled
	watched  chan string                // ids, each time somebody waits
	hung     map[string]bool            // operations that end only by being cancelled
	lost     bool                       // a shutdown that was accepted is not carried out
}

func startFake(t *testing.T) *fake {
	t.Helper()
	folder, err := os.MkdirTemp("", "wherry") //nolint:usetesting // a socket's path must be short, whatever the test is called
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		socket: filepath.Join(folder, "agent.sock"), steps: map[string][]api.Operation{},
		cancels: make(chan string, 10), watched: make(chan string, 100), hung: map[string]bool{"op-slow": true},
	}
	server, err := http.New(http.Options{
		Instances: fakeInstances{}, Actions: f, Migrations: f, Rebuilds: fakeRebuilds{f}, Incoming: fakeIncoming{},
		Operations: fakeOperations{f}, Templates: fakeTemplates{f}, Targets: f, Hosts: fakeHost{}, Shutdowns: fakeShutdowns{f}, Leftovers: fakeLeftovers{f},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Listen(http.Listeners{Socket: f.socket}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan error, 1)
	go func() { finished <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-finished; err != nil {
			t.Errorf("fake agent: %v", err)
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fake) note(call string, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, call+" "+string(text))
}

// sent gives the requests since the last call.
func (f *fake) sent() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.requests
	f.requests = nil
	return out
}

// begin makes an operation that goes through the given states.
func (f *fake) begin(steps ...api.Operation) api.Operation {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps[steps[0].ID] = steps[1:]
	return steps[0]
}

// next is what an operation is the next time somebody looks.
func (f *fake) next(id string) (api.Operation, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	steps := f.steps[id]
	if len(steps) == 0 {
		return api.Operation{}, false
	}
	if len(steps) > 1 {
		f.steps[id] = steps[1:]
	}
	return steps[0], true
}

var created = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func operation(id, kind, instance, status, phase string) api.Operation {
	return api.Operation{
		ID: id, Kind: kind, Project: api.DefaultProject, Instance: instance, Status: status, Phase: phase,
		Steps: []api.Step{}, CreatedAt: created, UpdatedAt: created, Cancellable: status == api.StatusRunning,
	}
}

// done is an operation that succeeds at once.
func (f *fake) done(kind, instance string, result any) (api.Operation, error) {
	last := operation("op-"+kind, kind, instance, api.StatusSucceeded, "")
	if result != nil {
		text, err := json.Marshal(result)
		if err != nil {
			return api.Operation{}, err
		}
		last.Result = text
	}
	return f.begin(operation("op-"+kind, kind, instance, api.StatusPending, ""), last), nil
}

func (f *fake) Create(_ context.Context, project string, r api.CreateRequest, _ api.Idempotency) (api.Operation, error) {
	f.note("create "+project, r)
	return f.done("create", r.Name, nil)
}

func (f *fake) Delete(_ context.Context, ref api.Ref, r api.DeleteRequest, _ api.Idempotency) (api.Operation, error) {
	f.note("delete "+ref.String(), r)
	if ref.Name == "vm1" {
		return api.Operation{}, api.NewProblem("precondition", "instance %q is running", ref.Name).WithHint("stop it first")
	}
	return f.done("delete", ref.Name, nil)
}

func (f *fake) Start(_ context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error) {
	f.note("start "+ref.String(), k.Key != "")
	return f.done("start", ref.Name, nil)
}

func (f *fake) Stop(_ context.Context, ref api.Ref, r api.StopRequest, _ api.Idempotency) (api.Operation, error) {
	f.note("stop "+ref.String(), r)
	return f.done("stop", ref.Name, api.StopResult{Rung: "acpi"})
}

func (f *fake) Restart(_ context.Context, ref api.Ref, r api.StopRequest, _ api.Idempotency) (api.Operation, error) {
	f.note("restart "+ref.String(), r)
	return f.done("restart", ref.Name, api.StopResult{
		Rung: "sigkill", Warnings: []string{"libvirt has not answered for 30s, its process has ended"},
		Rungs: []api.RungTime{{Rung: "acpi", Took: api.Duration(90 * time.Second), Tries: 18}, {Rung: "quit", Took: api.Duration(4 * time.Second), Tries: 1, Error: "no answer"},
			{Rung: "sigkill", Took: api.Duration(100 * time.Millisecond), Tries: 1}},
	})
}

func (f *fake) Modify(_ context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	f.note("targets", r)
	var answer api.TargetsResponse
	answer.Connected = []api.ConnectedTarget{}
	for i, t := range r.Targets {
		if t.Type == "powerflex" {
			return answer, api.NewProblem("target-failed", "targets[%d]: no path appeared", i).WithHint("is the volume mapped to this host?")
		}
		if r.Add {
			answer.Connected = append(answer.Connected, api.ConnectedTarget{Index: i, Path: "/connected/" + t.Type})
		}
	}
	return answer, nil
}

type fakeHost struct{}

func (fakeHost) Host(context.Context) (api.Host, error) { return api.Host{Name: "hosta"}, nil }
func (fakeHost) Ready(context.Context) error            { return nil }

func (fakeHost) Bandwidth(context.Context) (api.Bandwidth, error) {
	return api.Bandwidth{Bandwidth: 200 << 20, Source: api.BandwidthConfigured, Configured: 200 << 20, Shares: []api.BandwidthShare{{Operation: "op-vm1", Bandwidth: 120 << 20}, {Operation: "op-vm2", Bandwidth: 80 << 20}}}, nil
}

func (fakeHost) SetBandwidth(_ context.Context, bytes int64, by string) (api.Bandwidth, error) {
	return api.Bandwidth{Bandwidth: bytes, Source: api.BandwidthSet, SetBy: by, SetAt: &created, Configured: 200 << 20, Shares: []api.BandwidthShare{}}, nil
}

func (fakeHost) ResetBandwidth(context.Context) (api.Bandwidth, error) {
	return api.Bandwidth{Bandwidth: 200 << 20, Source: api.BandwidthConfigured, Configured: 200 << 20, Shares: []api.BandwidthShare{}}, nil
}

// fakeIncoming is never called: the command line is no peer.
type fakeIncoming struct{ http.Incoming }
