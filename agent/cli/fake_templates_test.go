package cli

import (
	"context"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeTemplates struct{ *fake }

const hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

var (
	retryAt     = created.Add(time.Minute)
	failedSince = created.Add(-11 * time.Minute)
)

var rocky9 = api.Template{
	ID: "rocky9", URL: "https://images.example.org/rocky9.qcow2", Checksum: "sha256:" + hash, Format: "qcow2", Pool: "default",
	DirectDownload: true, Digest: "sha256:" + hash, VirtualSize: 8 << 30, Size: 900 << 20,
	Copies: []api.TemplateCopy{
		{Pool: "default", Path: "/images/rocky9.qcow2", State: api.CopyReady, Progress: 100, Origin: "https://images.example.org/rocky9.qcow2",
			BytesDone: 900 << 20, BytesTotal: 900 << 20, Allocated: 812 << 20, UpdatedAt: created},
		{Pool: "fast", State: api.CopyFailed, Message: "https://host-b:8470: the folder /fast is immutable (chattr +i); https://images.example.org/rocky9.qcow2: the same",
			Code: "read-only", Class: "local", FailedSince: &failedSince, Attempts: 3, RetryAt: &retryAt, BytesTotal: -1, UpdatedAt: created},
		{Pool: "slow", State: api.CopyDownloading, Progress: 42, Origin: "https://images.example.org/rocky9.qcow2", Attempts: 1,
			BytesDone: 378 << 20, BytesTotal: 900 << 20, UpdatedAt: created},
	},
	Refs: []api.TemplateRef{
		{Known: api.RefBoth, Project: api.DefaultProject, Instance: "vm1", Disk: "vda", Volume: "/images/vm1.qcow2", Pool: "default"},
		{Known: api.RefRecorded, Project: "web", Instance: "front", Disk: "vda", Volume: "/images/front.qcow2", Pool: "default"},
		{Known: api.RefFound, Project: api.DefaultProject, Instance: "vm1", Disk: "vdb", Volume: "/fast/vm1-b.qcow2", Pool: "fast"},
	},
}

// broken is a template whose image was refused for good.
var broken = api.Template{
	ID: "broken", URL: "https://images.example.org/broken.qcow2", Checksum: "sha256:" + hash, Format: "qcow2", Pool: "default",
	Copies: []api.TemplateCopy{
		{Pool: "default", State: api.CopyFailed, Message: "the image names a backing file, \"/etc/shadow\"", Code: "image", Class: "policy",
			FailedSince: &created, Attempts: 1, UpdatedAt: created},
	},
	Refs: []api.TemplateRef{},
}

// gone is a template from a host that nobody knows.
var gone = api.Template{
	ID: "gone", URL: "https://images.example.invalid/a.raw", Checksum: "sha256:" + hash, Format: "raw", Pool: "default",
	Copies: []api.TemplateCopy{
		{Pool: "default", State: api.CopyFailed, Message: "the host name images.example.invalid cannot be resolved", Code: "unresolvable", Class: "source",
			FailedSince: &created, Attempts: 1, RetryAt: &retryAt, BytesTotal: -1, UpdatedAt: created},
	},
	Refs: []api.TemplateRef{},
}

// full is a template for which there is no room.
var full = api.Template{
	ID: "full", URL: "https://images.example.org/a.raw", Checksum: "sha256:" + hash, Format: "raw", Pool: "default",
	Copies: []api.TemplateCopy{
		{Pool: "default", State: api.CopyFailed, Message: "pool \"default\" has 1.0 GiB free, 10.0 GiB are needed", Code: "no-space", Class: "local",
			FailedSince: &created, Attempts: 1, RetryAt: &retryAt, UpdatedAt: created},
	},
	Refs: []api.TemplateRef{},
}

func (fakeTemplates) List(context.Context) (api.TemplateList, error) {
	removed := api.Template{ID: "old", Format: "raw", RemovedAt: &created, Copies: []api.TemplateCopy{}, Refs: []api.TemplateRef{}}
	unpacking := api.Template{ID: "unpacking", Format: "raw", Pool: "default", Refs: []api.TemplateRef{}, Copies: []api.TemplateCopy{
		{Pool: "default", State: api.CopySyncing, BytesDone: 1 << 30, BytesTotal: -1, UpdatedAt: created},
	}}
	unowned := []api.UnownedFile{
		{Pool: "default", Path: "/images/rocky9.qcow2.foreign-x1", Kind: "foreign", Bytes: 12 << 20, ModifiedAt: created},
		{Pool: "fast", Path: "/fast/.wherry-template-x2.partial", Kind: "partial", Bytes: 3 << 30, ModifiedAt: created},
	}
	return api.TemplateList{Templates: []api.Template{rocky9, broken, unpacking, removed}, Unowned: unowned}, nil
}

func (fakeTemplates) Get(_ context.Context, id string) (api.Template, error) {
	for _, t := range []api.Template{rocky9, broken, gone, full, rotten} {
		if t.ID == id {
			return t, nil
		}
	}
	return api.Template{}, api.NewProblem("not-found", "no template %q", id)
}

func (f fakeTemplates) Register(_ context.Context, r api.TemplateRequest, _ api.Idempotency) (api.Operation, error) {
	f.note("register", r)
	return f.fetch(r.ID)
}

func (f fakeTemplates) Retry(_ context.Context, id string, _ api.Idempotency) (api.Operation, error) {
	f.note("retry", id)
	return f.fetch(id)
}

// rotten is a template whose file was found changed.
var rotten = api.Template{
	ID: "rotten", URL: "https://images.example.org/b.raw", Checksum: "sha256:" + hash, Format: "raw", Pool: "default",
	Copies: []api.TemplateCopy{
		{Pool: "default", State: api.CopyFailed, Message: `the file "/images/b.raw" was changed`, Code: "changed", Class: "local",
			FailedSince: &created, RetryAt: &created, UpdatedAt: created},
	},
	Refs: []api.TemplateRef{},
}

func (f fakeTemplates) Scrub(_ context.Context, id string, _ api.Idempotency) (api.Operation, error) {
	f.note("scrub", id)
	if id != rotten.ID {
		return f.done(scrubKind, "", rocky9)
	}
	end := operation("op-template-scrub", scrubKind, "", api.StatusFailed, "scrub")
	end.Error = api.NewProblem("template-failed", "%s", rotten.Copies[0].Message).WithPhase("scrub")
	return f.begin(operation("op-template-scrub", scrubKind, "", api.StatusRunning, "scrub"), end), nil
}

// fetch ends as the template's first failed copy says, or well.
func (f fakeTemplates) fetch(id string) (api.Operation, error) {
	begun := operation("op-template", templateKind, "", api.StatusRunning, "download")
	begun.Project, begun.Template = "", id
	waits, half := begun, begun
	waits.Progress.Detail = "waiting: 4 downloads at once"
	half.Progress = api.Progress{Percent: 50, BytesDone: 450 << 20, BytesTotal: 900 << 20}
	for t, problem := range map[*api.Template]string{&broken: "template-failed", &gone: "template-failed", &full: "no-space"} {
		if t.ID == id {
			end := operation("op-template", templateKind, "", api.StatusFailed, "download")
			end.Error = api.NewProblem(problem, "%s", t.Copies[0].Message).WithPhase("download")
			return f.begin(begun, end), nil
		}
	}
	if _, err := f.done(templateKind, "", rocky9); err != nil {
		return api.Operation{}, err
	}
	end, _ := f.next("op-template")
	end.Project, end.Template = "", id
	end.UpdatedAt = created.Add(9300 * time.Millisecond)
	return f.begin(begun, waits, half, end), nil
}

func (f fakeTemplates) Remove(_ context.Context, id string) (api.Template, error) {
	f.note("remove", id)
	t := rocky9
	t.RemovedAt = &created
	return t, nil
}

func (fakeTemplates) Open(context.Context, string) (*os.File, api.Template, error) {
	return nil, api.Template{}, api.NewProblem("not-found", "the command line reads no content")
}
