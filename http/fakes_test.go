package http_test

import (
	"context"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// The services as structs of functions: a test sets what it expects to be
// called, and anything else panics, which the server answers with 500.

type fakeInstances struct {
	ListFn  func(ctx context.Context, project string) ([]api.Instance, error)
	GetFn   func(ctx context.Context, ref api.Ref) (api.Instance, error)
	DisksFn func(ctx context.Context, ref api.Ref) ([]api.Disk, error)
}

func (f *fakeInstances) List(ctx context.Context, project string) ([]api.Instance, error) {
	return f.ListFn(ctx, project)
}

func (f *fakeInstances) Get(ctx context.Context, ref api.Ref) (api.Instance, error) {
	return f.GetFn(ctx, ref)
}

func (f *fakeInstances) Disks(ctx context.Context, ref api.Ref) ([]api.Disk, error) {
	return f.DisksFn(ctx, ref)
}

type fakeActions struct {
	CreateFn func(ctx context.Context, project string, r api.CreateRequest, k api.Idempotency) (api.Operation, error)
	DeleteFn func(ctx context.Context, ref api.Ref, r api.DeleteRequest, k api.Idempotency) (api.Operation, error)
	StartFn  func(ctx context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error)
	StopFn   func(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error)

	RestartFn func(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error)
}

func (f *fakeActions) Create(ctx context.Context, project string, r api.CreateRequest, k api.Idempotency) (api.Operation, error) {
	return f.CreateFn(ctx, project, r, k)
}

func (f *fakeActions) Delete(ctx context.Context, ref api.Ref, r api.DeleteRequest, k api.Idempotency) (api.Operation, error) {
	return f.DeleteFn(ctx, ref, r, k)
}

func (f *fakeActions) Start(ctx context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error) {
	return f.StartFn(ctx, ref, k)
}

func (f *fakeActions) Stop(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	return f.StopFn(ctx, ref, r, k)
}

func (f *fakeActions) Restart(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	return f.RestartFn(ctx, ref, r, k)
}

type fakeMigrations struct {
	PlanFn    func(ctx context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error)
	MigrateFn func(ctx context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error)
}

func (f *fakeMigrations) Plan(ctx context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error) {
	return f.PlanFn(ctx, ref, r)
}

func (f *fakeMigrations) Migrate(ctx context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error) {
	return f.MigrateFn(ctx, ref, r, k)
}

type fakeIncoming struct {
	FactsFn   func(ctx context.Context, r api.FactsRequest) (api.Facts, error)
	ReserveFn func(ctx context.Context, r api.IncomingRequest) (api.Incoming, error)
	RenewFn   func(ctx context.Context, id string) (api.Incoming, error)
	GetFn     func(ctx context.Context, id string) (api.Incoming, error)
	CommitFn  func(ctx context.Context, id string, r api.CommitRequest) (api.Incoming, error)
	RemoveFn  func(ctx context.Context, id string) error
	SettleFn  func(ctx context.Context, id string, r api.SettleRequest) (api.Incoming, error)
}

func (f *fakeIncoming) Settle(ctx context.Context, id string, r api.SettleRequest) (api.Incoming, error) {
	return f.SettleFn(ctx, id, r)
}

func (f *fakeIncoming) Facts(ctx context.Context, r api.FactsRequest) (api.Facts, error) {
	return f.FactsFn(ctx, r)
}

func (f *fakeIncoming) Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error) {
	return f.ReserveFn(ctx, r)
}

func (f *fakeIncoming) Renew(ctx context.Context, id string) (api.Incoming, error) {
	return f.RenewFn(ctx, id)
}

func (f *fakeIncoming) Get(ctx context.Context, id string) (api.Incoming, error) {
	return f.GetFn(ctx, id)
}

func (f *fakeIncoming) Commit(ctx context.Context, id string, r api.CommitRequest) (api.Incoming, error) {
	return f.CommitFn(ctx, id, r)
}

func (f *fakeIncoming) Remove(ctx context.Context, id string) error { return f.RemoveFn(ctx, id) }

type fakeOperations struct {
	GetFn    func(ctx context.Context, id string) (api.Operation, error)
	ListFn   func(ctx context.Context, instance, status string) ([]api.Operation, error)
	WaitFn   func(ctx context.Context, id string, d time.Duration) (api.Operation, error)
	CancelFn func(ctx context.Context, id string) (api.Operation, error)
	EventsFn func(ctx context.Context, after uint64) (<-chan api.Event, error)

	ResolveFn func(ctx context.Context, id string, r api.ResolveRequest) (api.Operation, error)
}

func (f *fakeOperations) Resolve(ctx context.Context, id string, r api.ResolveRequest) (api.Operation, error) {
	return f.ResolveFn(ctx, id, r)
}

func (f *fakeOperations) Get(ctx context.Context, id string) (api.Operation, error) {
	return f.GetFn(ctx, id)
}

func (f *fakeOperations) List(ctx context.Context, instance, status string) ([]api.Operation, error) {
	return f.ListFn(ctx, instance, status)
}

func (f *fakeOperations) Wait(ctx context.Context, id string, d time.Duration) (api.Operation, error) {
	return f.WaitFn(ctx, id, d)
}

func (f *fakeOperations) Cancel(ctx context.Context, id string) (api.Operation, error) {
	return f.CancelFn(ctx, id)
}

func (f *fakeOperations) Events(ctx context.Context, after uint64) (<-chan api.Event, error) {
	return f.EventsFn(ctx, after)
}

type fakeTemplates struct {
	ListFn     func(ctx context.Context) (api.TemplateList, error)
	GetFn      func(ctx context.Context, id string) (api.Template, error)
	RegisterFn func(ctx context.Context, r api.TemplateRequest, k api.Idempotency) (api.Operation, error)
	RemoveFn   func(ctx context.Context, id string) (api.Template, error)
	RetryFn    func(ctx context.Context, id string, k api.Idempotency) (api.Operation, error)
	ScrubFn    func(ctx context.Context, id string, k api.Idempotency) (api.Operation, error)
	OpenFn     func(ctx context.Context, id string) (*os.File, api.Template, error)
}

func (f *fakeTemplates) List(ctx context.Context) (api.TemplateList, error) { return f.ListFn(ctx) }

func (f *fakeTemplates) Get(ctx context.Context, id string) (api.Template, error) {
	return f.GetFn(ctx, id)
}

func (f *fakeTemplates) Register(ctx context.Context, r api.TemplateRequest, k api.Idempotency) (api.Operation, error) {
	return f.RegisterFn(ctx, r, k)
}

func (f *fakeTemplates) Remove(ctx context.Context, id string) (api.Template, error) {
	return f.RemoveFn(ctx, id)
}

func (f *fakeTemplates) Retry(ctx context.Context, id string, k api.Idempotency) (api.Operation, error) {
	return f.RetryFn(ctx, id, k)
}

func (f *fakeTemplates) Scrub(ctx context.Context, id string, k api.Idempotency) (api.Operation, error) {
	return f.ScrubFn(ctx, id, k)
}

func (f *fakeTemplates) Open(ctx context.Context, id string) (*os.File, api.Template, error) {
	return f.OpenFn(ctx, id)
}

type fakeTargets struct {
	ModifyFn func(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}

func (f *fakeTargets) Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	return f.ModifyFn(ctx, r)
}

type fakeHosts struct {
	HostFn  func(ctx context.Context) (api.Host, error)
	WidthFn func(ctx context.Context) (api.Bandwidth, error)
	SetFn   func(ctx context.Context, bytes int64, by string) (api.Bandwidth, error)
	ResetFn func(ctx context.Context) (api.Bandwidth, error)
	ReadyFn func(ctx context.Context) error
}

func (f *fakeHosts) Bandwidth(ctx context.Context) (api.Bandwidth, error) { return f.WidthFn(ctx) }
func (f *fakeHosts) SetBandwidth(ctx context.Context, bytes int64, by string) (api.Bandwidth, error) {
	return f.SetFn(ctx, bytes, by)
}
func (f *fakeHosts) ResetBandwidth(ctx context.Context) (api.Bandwidth, error) { return f.ResetFn(ctx) }
func (f *fakeHosts) Host(ctx context.Context) (api.Host, error)                { return f.HostFn(ctx) }
func (f *fakeHosts) Ready(ctx context.Context) error                           { return f.ReadyFn(ctx) }

type fakeShutdowns struct {
	ShutdownFn func(ctx context.Context, r api.ShutdownRequest, k api.Idempotency) (api.Operation, error)
	StatusFn   func(ctx context.Context) (api.Shutdown, error)
	PolicyFn   func(ctx context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error)
	EndedFn    func(ctx context.Context, r api.HookRequest) error
}

func (f *fakeShutdowns) Shutdown(ctx context.Context, r api.ShutdownRequest, k api.Idempotency) (api.Operation, error) {
	return f.ShutdownFn(ctx, r, k)
}

func (f *fakeShutdowns) Status(ctx context.Context) (api.Shutdown, error) { return f.StatusFn(ctx) }

func (f *fakeShutdowns) Policy(ctx context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error) {
	return f.PolicyFn(ctx, ref, p)
}

func (f *fakeShutdowns) Ended(ctx context.Context, r api.HookRequest) error { return f.EndedFn(ctx, r) }
