package cli

import (
	"context"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeOperations struct{ *fake }

func (f fakeOperations) Get(_ context.Context, id string) (api.Operation, error) {
	if op, known := f.next(id); known {
		return op, nil
	}
	return api.Operation{}, api.NewProblem("not-found", "no operation %q", id)
}

func (f fakeOperations) List(_ context.Context, instance, status string) ([]api.Operation, error) {
	f.note("operations", map[string]string{"instance": instance, "status": status})
	front := operation("op-2", "stop", "front", api.StatusSucceeded, "")
	front.Project = "web"
	return []api.Operation{moving("op-1", "vm1", 42, 430<<20, 0), front}, nil
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

type fakeTemplates struct{ *fake }

var rocky9 = api.Template{
	ID: "rocky9", URL: "https://images.example.org/rocky9.qcow2", Checksum: "sha256:" + hash, Format: "qcow2", Pool: "default",
	DirectDownload: true, Digest: "sha256:" + hash, VirtualSize: 8 << 30, Size: 900 << 20,
	Copies: []api.TemplateCopy{
		{Pool: "default", Path: "/images/rocky9.qcow2", State: api.CopyReady, Progress: 100, Attempts: 1, UpdatedAt: created},
		{Pool: "fast", State: api.CopyDownloading, Progress: 42, Attempts: 2, Message: "connection reset\nby peer", RetryAt: &retryAt, UpdatedAt: created},
	},
	Refs: []api.TemplateRef{{Project: api.DefaultProject, Instance: "vm1", Disk: "vda", Volume: "/images/vm1.qcow2", Pool: "default"}},
}

var retryAt = created.Add(time.Minute)

const hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (fakeTemplates) List(context.Context) ([]api.Template, error) {
	removed := api.Template{ID: "old", Format: "raw", RemovedAt: &created, Copies: []api.TemplateCopy{}, Refs: []api.TemplateRef{}}
	return []api.Template{rocky9, removed}, nil
}

func (fakeTemplates) Get(_ context.Context, id string) (api.Template, error) {
	if id != rocky9.ID {
		return api.Template{}, api.NewProblem("not-found", "no template %q", id)
	}
	return rocky9, nil
}

func (f fakeTemplates) Register(_ context.Context, r api.TemplateRequest, _ api.Idempotency) (api.Operation, error) {
	f.note("register", r)
	return f.done("template", "", nil)
}

func (f fakeTemplates) Remove(_ context.Context, id string) (api.Template, error) {
	f.note("remove", id)
	t := rocky9
	t.RemovedAt = &created
	return t, nil
}

func (f fakeTemplates) Retry(_ context.Context, id string, _ api.Idempotency) (api.Operation, error) {
	f.note("retry", id)
	return f.done("template", "", nil)
}

func (fakeTemplates) Open(context.Context, string) (*os.File, api.Template, error) {
	return nil, api.Template{}, api.NewProblem("not-found", "the command line reads no content")
}
