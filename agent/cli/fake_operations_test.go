package cli

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeOperations struct{ *fake }

func (f fakeOperations) Get(_ context.Context, id string) (api.Operation, error) {
	if op, known := f.next(id); known {
		return op, nil
	}
	switch id {
	case "op-4":
		return inLine(), nil
	case "op-5":
		return busyGuest(), nil
	}
	return api.Operation{}, api.NewProblem("not-found", "no operation %q", id)
}

func (f fakeOperations) List(_ context.Context, instance, status string) ([]api.Operation, error) {
	f.note("operations", map[string]string{"instance": instance, "status": status})
	front := operation("op-2", "stop", "front", api.StatusSucceeded, "")
	front.Project = "web"
	image := operation("op-3", templateKind, "", api.StatusRunning, "download")
	image.Project, image.Template = "", "rocky9"
	return []api.Operation{moving("op-1", "vm1", 42, 430<<20, 0), front, image, inLine()}, nil
}

// inLine is a migration that waits for its turn.
func inLine() api.Operation {
	op := operation("op-4", "migrate", "vm4", api.StatusPending, "queued")
	op.Cancellable = true
	op.Progress = api.Progress{Detail: "number 2 in the line: 1 migrations from this host at once, and vm1 (op-1) are under way",
		Queue: &api.QueuePlace{Direction: api.QueueOutgoing, Position: 2, Ahead: []string{"op-9"}, Operations: []string{"op-1"}}}
	return op
}

// busyGuest is a migration whose memory has not converged yet.
func busyGuest() api.Operation {
	op := moving("op-5", "vm5", 42, 430<<20, 0)
	op.Progress.Convergence = &api.Convergence{Iteration: 4, Action: "raise-downtime", Reason: "no nearer to its end since pass 2"}
	return op
}

func (f fakeOperations) Wait(ctx context.Context, id string, d time.Duration) (api.Operation, error) {
	select {
	case f.watched <- id:
	default:
	}
	f.mu.Lock()
	hung := f.hung[id]
	f.mu.Unlock()
	if hung {
		select {
		case <-ctx.Done():
		case <-time.After(min(d, 50*time.Millisecond)): // as long as its reader asked for, but shorter
		}
	}
	return f.Get(ctx, id)
}

func (f fakeOperations) Cancel(_ context.Context, id string) (api.Operation, error) {
	op := operation(id, "migrate", "slow", api.StatusRunning, "undo")
	end := operation(id, "migrate", "slow", api.StatusCancelled, "perform")
	end.Error = api.NewProblem("cancelled", "cancelled by the caller")
	f.mu.Lock()
	f.hung[id] = false
	f.mu.Unlock()
	f.begin(op, end)
	f.cancels <- id
	return op, nil
}

func (f fakeOperations) Resolve(_ context.Context, id string, r api.ResolveRequest) (api.Operation, error) {
	f.note("resolve "+id, r)
	if id == "op-lost" && r.OtherHost == "" {
		p := api.NewProblem("conflict", "the destination does not answer: the only copy could be destroyed. State that it runs there (--other-host has-it)")
		return api.Operation{}, p.WithOperation(id).WithHint("nothing was done")
	}
	end := operation(id, "migrate", "undecided", api.StatusSucceeded, "clean")
	if r.Keep == api.SideSource {
		end = operation(id, "migrate", "undecided", api.StatusFailed, "resolve")
		end.Error = api.NewProblem("kept-at-source", "it was decided that the instance stays at the source")
	}
	return f.begin(operation(id, "migrate", "undecided", api.StatusRunning, "resolve"), end), nil
}

func (fakeOperations) Events(ctx context.Context, after uint64) (<-chan api.Event, error) {
	running := operation("op-1", "migrate", "vm1", api.StatusRunning, "perform")
	all := []api.Event{
		{ID: 1, Kind: "host", At: created, Detail: "libvirt is back"},
		{ID: 2, Kind: "operation", At: created.Add(time.Second), Project: api.DefaultProject, Instance: "vm1", Operation: &running},
		{ID: 3, Kind: "instance", At: created.Add(2 * time.Second), Project: "web", Instance: "front", Detail: "stopped"},
	}
	out := make(chan api.Event)
	go func() {
		defer close(out)
		for _, e := range all {
			if e.ID <= after {
				continue
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		<-ctx.Done()
	}()
	return out, nil
}
