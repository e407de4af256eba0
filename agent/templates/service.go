package templates

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

const kind = "template"

// Service answers the template calls of the agent.
type Service struct {
	Registry   *template.Registry
	Operations *operation.Engine
	Peers      *Peers
	// Refs adds what was found in the chains to what the store knows; nil: the
	// store alone is believed.
	Refs *Refs
	Log  *slog.Logger
}

// New makes the service and registers how its operations are recovered.
func New(s Service) *Service {
	out := &s
	s.Operations.Recover(kind, out.recover)
	s.Operations.Recover(kindScrub, out.recoverScrub)
	return out
}

// List gives all templates, tombstones too.
func (s *Service) List(ctx context.Context) (api.TemplateList, error) {
	s.look(ctx)
	out := api.TemplateList{Templates: []api.Template{}, Unowned: []api.UnownedFile{}}
	for _, t := range s.Registry.List() {
		out.Templates = append(out.Templates, s.shown(t))
	}
	for _, u := range s.Registry.Unowned() {
		out.Unowned = append(out.Unowned, api.UnownedFile{Pool: u.Pool, Path: u.Path, Kind: u.Kind, Bytes: u.Bytes, ModifiedAt: u.ModifiedAt.UTC()})
	}
	return out, nil
}

// Get gives one template.
func (s *Service) Get(ctx context.Context, id string) (api.Template, error) {
	s.look(ctx)
	t, err := s.Registry.Get(id)
	return s.shown(t), problem(err)
}

// Register adds a template and fetches it in an operation.
func (s *Service) Register(ctx context.Context, r api.TemplateRequest, k api.Idempotency) (api.Operation, error) {
	spec := template.Spec{ID: r.ID, URL: r.URL, Checksum: r.Checksum, Format: r.Format, Pool: r.Pool,
		DirectDownload: r.DirectDownload, Headers: r.Headers, SyncFrom: r.SyncFrom}
	if _, err := s.Registry.Register(ctx, spec); err != nil {
		return api.Operation{}, problem(err)
	}
	return s.fetch(ctx, r.ID, k)
}

// Retry fetches what is not ready.
func (s *Service) Retry(ctx context.Context, id string, k api.Idempotency) (api.Operation, error) {
	t, err := s.Registry.Get(id)
	if err != nil {
		return api.Operation{}, problem(err)
	}
	if t.Removed() {
		return api.Operation{}, api.NewProblem("not-found", "template %q was removed", id)
	}
	return s.fetch(ctx, id, k)
}

type request struct {
	Template string `json:"template"`
}

func (s *Service) fetch(ctx context.Context, id string, k api.Idempotency) (api.Operation, error) {
	return s.Operations.Start(ctx, operation.Spec{Kind: kind, Template: id, Key: k, Request: request{id}, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) { return s.run(ctx, op, id) })
}

func (s *Service) run(ctx context.Context, op *operation.Op, id string) (any, error) {
	err := op.Step(ctx, "download", func(ctx context.Context) error {
		return s.Registry.Fetch(ctx, id, s.tells(op, id))
	})
	if err != nil {
		return nil, problem(err)
	}
	return s.Get(ctx, id)
}

// tells shows how far a fetch is, and while nothing has come, what it waits for.
func (s *Service) tells(op *operation.Op, id string) template.Progress {
	return func(done, total int64) {
		p := progress(done, total)
		if done == 0 {
			t, _ := s.Registry.Lookup(id)
			for _, c := range t.Copies {
				if c.State == template.StatePending {
					p.Detail = cmp.Or(p.Detail, c.Message)
				}
			}
		}
		op.Progress(p)
	}
}

func progress(done, total int64) api.Progress {
	p := api.Progress{BytesDone: done, BytesTotal: max(total, 0)}
	if total > 0 {
		p.Percent = 100 * float64(done) / float64(total)
	}
	return p
}

// recover fetches again what an earlier run of the agent had begun.
func (s *Service) recover(ctx context.Context, op *operation.Op) (any, error) {
	var r request
	if err := op.Request(&r); err != nil {
		return nil, err
	}
	return s.run(ctx, op, r.Template)
}

// Remove leaves a tombstone, which keeps the flags.
func (s *Service) Remove(ctx context.Context, id string) (api.Template, error) {
	t, err := s.Registry.Remove(ctx, id)
	return s.shown(t), problem(err)
}

// problem maps the registry's errors to the wire's.
func problem(err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p
	}
	if fields, ok := errors.AsType[template.FieldErrors](err); ok {
		p := api.NewProblem("bad-request", "%w", err)
		for _, f := range fields {
			p.WithField(f.Field, f.Detail)
		}
		return p
	}
	for _, c := range []struct {
		err  error
		code string
	}{
		{template.ErrNotFound, "not-found"}, {template.ErrConflict, "conflict"}, {template.ErrBusy, "busy"},
		{template.ErrNotReady, "not-ready"}, {template.ErrPool, "bad-request"},
		{context.DeadlineExceeded, "timeout"},
	} {
		if errors.Is(err, c.err) {
			return api.NewProblem(c.code, "%w", err)
		}
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Code == fault.NoSpace {
		return api.NewProblem("no-space", "%w", err)
	}
	return api.NewProblem("template-failed", "%w", err).WithHint("`wherry template info` shows the state of each copy; `wherry template retry` tries again")
}

// shown is show with the refs by both witnesses.
func (s *Service) shown(t template.Template) api.Template {
	out := show(t)
	if s.Refs != nil {
		out.Refs = s.Refs.Known(t)
	}
	return out
}

func (s *Service) look(ctx context.Context) {
	if s.Refs != nil {
		s.Refs.Look(ctx)
	}
}

// changed notes that the refs are others than at the last look.
func (s *Service) changed() {
	if s.Refs != nil {
		s.Refs.Changed()
	}
}

// show is a template as the wire has it; headers may be secret and stay here.
func show(t template.Template) api.Template {
	out := api.Template{ID: t.ID, URL: t.URL, Checksum: t.Checksum, Format: t.Format, Pool: t.Pool, DirectDownload: t.DirectDownload,
		SyncFrom: t.SyncFrom, Digest: t.Digest, VirtualSize: t.VirtualSize, Size: t.Size, RemovedAt: t.RemovedAt,
		Copies: []api.TemplateCopy{}, Refs: []api.TemplateRef{}}
	for _, c := range t.Copies {
		out.Copies = append(out.Copies, api.TemplateCopy{Pool: c.Pool, Path: c.Path, State: c.State, Progress: c.Progress,
			Message: c.Message, Code: c.Code, Class: string(c.Class), FailedSince: c.FailedSince, Attempts: c.Attempts, RetryAt: c.RetryAt,
			Origin: c.Origin, BytesDone: c.BytesDone, BytesTotal: c.BytesTotal, Allocated: c.Allocated, UpdatedAt: c.UpdatedAt})
	}
	for _, r := range t.Refs {
		out.Refs = append(out.Refs, api.TemplateRef{Known: api.RefRecorded, Project: r.Project, Instance: r.Instance, Disk: r.Disk, Volume: r.Volume, Pool: r.Pool})
	}
	return out
}
