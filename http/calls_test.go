package http_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

var (
	aTime      = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	aUUID      = "5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001"
	aDigest    = "sha256:" + strings.Repeat("ab", 32)
	aLayer     = api.Layer{Path: "/images/base.qcow2", Format: "qcow2", VirtualSize: 1 << 30, Allocated: 1 << 20, Digest: aDigest, Template: "rocky9"}
	aPlace     = api.DiskPlace{Pool: "default", Kind: "file", Path: "/images/vm1.qcow2", Format: "qcow2"}
	anInstance = api.Instance{Project: "default", Name: "vm1", UUID: aUUID, State: "running", VCPUs: 2, Memory: 1 << 30, Managed: true, Operation: "01JD7ZK3M8",
		Lock: &api.Lock{Operation: "01JD7ZK3M8", Kind: "stop", Since: aTime, Waiters: []api.Waiter{{Operation: "01JD7ZK3M9", Kind: "stop", Since: aTime}}}}
	anOp = api.Operation{
		ID: "01JD7ZK3M8", Kind: "migrate", Project: "default", Instance: "vm1", Status: api.StatusRunning, Phase: "perform",
		Progress: api.Progress{Percent: 12.5, Disks: []api.PartProgress{{Target: "vda", BytesDone: 1, BytesTotal: 8}}},
		Steps:    []api.Step{{Name: "inspect", Status: "done", StartedAt: aTime, EndedAt: &aTime}},
		Result:   json.RawMessage(`{"mode":"full"}`), CreatedAt: aTime, UpdatedAt: aTime, Cancellable: true,
	}
	anUnowned = api.UnownedFile{Pool: "default", Path: "/srv/images/.foreign-1", Kind: "foreign", Bytes: 512, ModifiedAt: aTime}
	aTemplate = api.Template{
		ID: "rocky9", URL: "http://images/rocky9", Checksum: aDigest, Format: "qcow2", Pool: "default", DirectDownload: true, Digest: aDigest,
		Copies: []api.TemplateCopy{{Pool: "default", State: api.CopyReady, Progress: 100, UpdatedAt: aTime}},
		Refs:   []api.TemplateRef{{Project: "default", Instance: "vm1", Disk: "vda", Volume: "vm1.qcow2", Pool: "default"}},
	}
	anIncoming = api.Incoming{
		ID: "in1", Operation: "op1", Project: "default", Name: "vm1", UUID: aUUID, State: "ready", Lease: aTime,
		Disks: []api.IncomingPlace{{Target: "vda", Path: "/images/vm1.qcow2", Format: "qcow2"}},
	}
	aHost     = api.Host{Name: "a", UUID: aUUID, Pools: []api.Pool{{Name: "default", Type: "dir", Active: true}}, Counts: map[string]int{"running": 1}}
	aWidth    = api.Bandwidth{Bandwidth: 1 << 30, Source: api.BandwidthConfigured, Configured: 1 << 30, Shares: []api.BandwidthShare{{Operation: "op1", Bandwidth: 1 << 29}}}
	aPolicy   = api.StopPolicy{Priority: -10, Timeout: api.Duration(90 * time.Second), Action: api.StopForce}
	aHook     = api.HookRequest{Name: "vm1", UUID: aUUID, Operation: "release", Reason: "shutdown", Called: api.Duration(90 * time.Second)}
	aShutdown = api.Shutdown{Running: true, Operation: "01JD7ZK3M8", Result: &api.ShutdownResult{By: "agent", Began: aTime, Deadline: aTime,
		Instances: []api.ShutdownInstance{{Project: "default", Name: "vm1", UUID: aUUID, Priority: 10, Outcome: api.ShutdownStopped, Rung: api.RungACPI,
			Rungs: []api.RungTime{{Rung: api.RungACPI, Took: api.Duration(time.Second), Tries: 1}}, Took: api.Duration(time.Second)}}}}
	aRef     = api.Ref{Project: "blue", Name: "vm 1+ü"} // a name that must be escaped
	aMigrate = api.MigrateRequest{
		Destination: "https://b:8470", Mode: "auto", Seed: "off", Bandwidth: 1 << 20, MaxDowntime: api.Duration(300 * time.Millisecond), OnNotConverging: api.NotConvergingPause,
		Disks: []api.DiskRequest{{Target: "vda", Pool: "fast", Format: "raw", Connect: &api.Target{
			Type: "iscsi", Portal: "[fd77::9]:3260", IQN: "iqn.2026-01.org.example:store", LUN: 1, CHAP: &api.CHAP{User: "u", Secret: "s"},
		}}},
	}
	aPlan = api.Plan{
		Mode: "full", Forced: true, Reasons: []api.Reason{{Code: "direct-download", Disk: "vda", Detail: "it is"}},
		Disks:  []api.PlanDisk{{Target: "vda", Action: api.ActionCopy, Clone: "full", Reason: "direct-download", Chain: []api.Layer{aLayer}, Source: aPlace, Destination: &aPlace}},
		Checks: []api.Check{{Code: "cpu-compatible", OK: true, Detail: "same"}},
	}
	aFactsRequest = api.FactsRequest{
		Project: "default", Name: "vm1", UUID: aUUID, HostUUID: aUUID, DomainXML: "<domain/>",
		Disks: []api.FactsDisk{{
			Target: "vda", Path: "/images/vm1.qcow2", Kind: "file", Size: 1, Chain: []api.Layer{aLayer},
			Probe: &api.Probe{Name: ".wherry-probe-00", Token: "t"},
		}},
	}
	someFacts = api.Facts{
		Host: aHost, LibvirtURI: "qemu+tls://b/system", Pools: []api.Pool{}, CPU: api.Check{Code: "cpu-compatible", OK: true, Detail: "same"},
		Disks: []api.DiskFacts{{Target: "vda", Layers: []api.LayerFacts{{Path: "/images/base.qcow2", State: "verified"}}}},
	}
	aRecord = api.Record{
		Project: "default", Name: "vm1", UUID: aUUID, DomainXML: "<domain/>", PowerState: "running", UpdatedAt: aTime,
		Disks: []api.RecordDisk{{Target: "vda", Path: "/images/vm1.qcow2", Format: "qcow2", Owned: true}},
	}
	aReservation = api.IncomingRequest{
		Operation: "op1", Source: "a", Project: "default", Name: "vm1", UUID: aUUID, Record: aRecord, Lease: api.Duration(time.Minute),
		Disks: []api.IncomingDisk{{Target: "vda", Place: aPlace, VirtualSize: 1 << 30, Seed: &api.Seed{From: "source", Chain: []api.Layer{aLayer}}}},
		Stage: []api.StageLayer{{Template: "rocky9", Layer: aLayer, Pool: "default", SyncFrom: "https://a:8470", Record: &aTemplate}},
	}
	someTargets = api.TargetsRequest{Add: true, Targets: []api.Target{
		{Type: "file", Path: "/srv/share"}, {Type: "powerflex", SystemID: "0f", VolumeID: "ab"}, {Type: "rbd", Pool: "p", Image: "i", Monitors: []string{"m1:6789"}},
	}}
	aTemplateRequest = api.TemplateRequest{
		ID: "rocky9", URL: "http://images/rocky9", Checksum: aDigest, Format: "qcow2", DirectDownload: true, Headers: map[string]string{"Authorization": "Bearer x"},
	}
)

// seen notes what a fake was called with.
type seen struct{ args []any }

func (s *seen) note(args ...any) { s.args = args }

// everyCall gives each call of the client, what the service is to be called
// with and what the client is to get back.
func everyCall(a *agent, s *seen) []struct {
	route  string
	call   func(ctx context.Context, c *client.Client) (any, error)
	wants  []any // the service's arguments
	answer any
} {
	a.instances = fakeInstances{
		ListFn: func(_ context.Context, p string) ([]api.Instance, error) {
			s.note(p)
			return []api.Instance{anInstance}, nil
		},
		GetFn: func(_ context.Context, r api.Ref) (api.Instance, error) { s.note(r); return anInstance, nil },
		DisksFn: func(_ context.Context, r api.Ref) ([]api.Disk, error) {
			s.note(r)
			return []api.Disk{{Target: "vda", Chain: []api.Layer{aLayer}}}, nil
		},
	}
	a.actions = fakeActions{
		CreateFn: func(_ context.Context, p string, r api.CreateRequest, k api.Idempotency) (api.Operation, error) {
			s.note(p, r, k.Key)
			return anOp, nil
		},
		DeleteFn: func(_ context.Context, ref api.Ref, r api.DeleteRequest, k api.Idempotency) (api.Operation, error) {
			s.note(ref, r, k.Key)
			return anOp, nil
		},
		StartFn: func(_ context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error) {
			s.note(ref, k.Key)
			return anOp, nil
		},
		StopFn: func(_ context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
			s.note(ref, r, k.Key)
			return anOp, nil
		},
		RestartFn: func(_ context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
			s.note(ref, r, k.Key)
			return anOp, nil
		},
	}
	a.migrations = fakeMigrations{
		PlanFn: func(_ context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error) {
			s.note(ref, r)
			return aPlan, nil
		},
		MigrateFn: func(_ context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error) {
			s.note(ref, r, k.Key)
			return anOp, nil
		},
	}
	a.rebuilds = fakeRebuilds{
		PlanFn: func(_ context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error) {
			s.note(ref, r)
			return aRebuildPlan, nil
		},
		RebuildFn: func(_ context.Context, ref api.Ref, r api.RebuildRequest, k api.Idempotency) (api.Operation, error) {
			s.note(ref, r, k.Key)
			return anOp, nil
		},
	}
	a.incoming = fakeIncoming{
		FactsFn: func(_ context.Context, r api.FactsRequest) (api.Facts, error) { s.note(r); return someFacts, nil },
		ReserveFn: func(_ context.Context, r api.IncomingRequest) (api.Incoming, error) {
			s.note(r)
			return anIncoming, nil
		},
		RenewFn: func(_ context.Context, id string) (api.Incoming, error) { s.note("renew", id); return anIncoming, nil },
		GetFn:   func(_ context.Context, id string) (api.Incoming, error) { s.note("get", id); return anIncoming, nil },
		CommitFn: func(_ context.Context, id string, r api.CommitRequest) (api.Incoming, error) {
			s.note(id, r)
			return anIncoming, nil
		},
		RemoveFn: func(_ context.Context, id string) error { s.note("remove", id); return nil },
		SettleFn: func(_ context.Context, id string, r api.SettleRequest) (api.Incoming, error) {
			s.note(id, r)
			return anIncoming, nil
		},
	}
	a.operations = fakeOperations{
		GetFn: func(_ context.Context, id string) (api.Operation, error) { s.note("get", id); return anOp, nil },
		ListFn: func(_ context.Context, instance, status string) ([]api.Operation, error) {
			s.note(instance, status)
			return []api.Operation{anOp, {ID: "other", Project: "blue", Status: api.StatusRunning, Steps: []api.Step{}}}, nil
		},
		WaitFn: func(_ context.Context, id string, d time.Duration) (api.Operation, error) {
			s.note(id, d)
			return anOp, nil
		},
		CancelFn: func(_ context.Context, id string) (api.Operation, error) { s.note("cancel", id); return anOp, nil },
		ResolveFn: func(_ context.Context, id string, r api.ResolveRequest) (api.Operation, error) {
			s.note(id, r)
			return anOp, nil
		},
	}
	a.templates = fakeTemplates{
		ListFn: func(context.Context) (api.TemplateList, error) {
			s.note()
			return api.TemplateList{Templates: []api.Template{aTemplate}, Unowned: []api.UnownedFile{anUnowned}}, nil
		},
		GetFn: func(_ context.Context, id string) (api.Template, error) { s.note("get", id); return aTemplate, nil },
		RegisterFn: func(_ context.Context, r api.TemplateRequest, k api.Idempotency) (api.Operation, error) {
			s.note(r, k.Key)
			return anOp, nil
		},
		RemoveFn: func(_ context.Context, id string) (api.Template, error) { s.note("remove", id); return aTemplate, nil },
		RetryFn: func(_ context.Context, id string, k api.Idempotency) (api.Operation, error) {
			s.note("retry", id, k.Key)
			return anOp, nil
		},
		ScrubFn: func(_ context.Context, id string, k api.Idempotency) (api.Operation, error) {
			s.note("scrub", id, k.Key)
			return anOp, nil
		},
	}
	connected := api.TargetsResponse{Connected: []api.ConnectedTarget{{Index: 0, Path: "/srv/share"}}}
	a.targets.ModifyFn = func(_ context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
		s.note(r)
		return connected, nil
	}
	a.hosts = fakeHosts{
		HostFn:  func(context.Context) (api.Host, error) { s.note(); return aHost, nil },
		WidthFn: func(context.Context) (api.Bandwidth, error) { s.note("bandwidth"); return aWidth, nil },
		SetFn: func(_ context.Context, bytes int64, by string) (api.Bandwidth, error) {
			s.note(bytes, by)
			return aWidth, nil
		},
		ResetFn: func(context.Context) (api.Bandwidth, error) { s.note("reset"); return aWidth, nil },
		ReadyFn: func(context.Context) error { s.note("ready"); return nil },
	}
	a.leftovers = fakeLeftovers{
		ListFn: func(context.Context) (api.LeftoverList, error) {
			s.note("leftovers")
			return allLeft, nil
		},
		DeleteFn: func(_ context.Context, paths []string) (api.LeftoversDeleted, error) {
			s.note(paths)
			return deleted, nil
		},
	}
	a.shutdowns = fakeShutdowns{
		ShutdownFn: func(_ context.Context, r api.ShutdownRequest, k api.Idempotency) (api.Operation, error) {
			s.note(r, k.Key)
			return anOp, nil
		},
		StatusFn: func(context.Context) (api.Shutdown, error) { s.note("status"); return aShutdown, nil },
		PolicyFn: func(_ context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error) {
			s.note(ref, p)
			return p, nil
		},
		EndedFn: func(_ context.Context, r api.HookRequest) error { s.note(r); return nil },
	}
	a.options.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.note("metrics")
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write([]byte("up 1\n"))
	})

	type row = struct {
		route  string
		call   func(ctx context.Context, c *client.Client) (any, error)
		wants  []any
		answer any
	}
	type ctx = context.Context
	type cl = *client.Client
	shutdown := api.ShutdownRequest{Timeout: api.Duration(4 * time.Minute)}
	create := api.CreateRequest{Name: "vm1", Template: "rocky9", Pool: "default", DiskSize: 1 << 30, Clone: "linked", VCPUs: 2, Memory: 1 << 30, Start: true, Stop: &aPolicy}
	stop := api.StopRequest{Timeout: api.Duration(90 * time.Second), OnTimeout: "force"}
	commit := api.CommitRequest{Record: &aRecord}
	return []row{
		{"GET /v1/host", func(x ctx, c cl) (any, error) { return c.Host(x) }, nil, aHost},
		{"GET /v1/host/bandwidth", func(x ctx, c cl) (any, error) { return c.Bandwidth(x) }, []any{"bandwidth"}, aWidth},
		{"PUT /v1/host/bandwidth", func(x ctx, c cl) (any, error) { return c.SetBandwidth(x, 0) }, []any{int64(0), "local"}, aWidth},
		{"DELETE /v1/host/bandwidth", func(x ctx, c cl) (any, error) { return c.ResetBandwidth(x) }, []any{"reset"}, aWidth},
		{"GET /v1/host/shutdown", func(x ctx, c cl) (any, error) { return c.ShutdownStatus(x) }, []any{"status"}, aShutdown},
		{"POST /v1/host/shutdown", func(x ctx, c cl) (any, error) { return c.Shutdown(x, shutdown, "k8") }, []any{shutdown, "k8"}, anOp},
		{"POST /v1/host/hook", func(x ctx, c cl) (any, error) { return nil, c.Hook(x, aHook) }, []any{aHook}, nil},
		{"PUT /v1/instances/:name/stop-policy", func(x ctx, c cl) (any, error) { return c.SetStopPolicy(x, aRef, aPolicy) }, []any{aRef, aPolicy}, aPolicy},
		{"GET /v1/instances", func(x ctx, c cl) (any, error) { return c.Instances(x, "") }, []any{"default"}, []api.Instance{anInstance}},
		{"GET /v1/instances", func(x ctx, c cl) (any, error) { return c.Instances(x, "blue") }, []any{"blue"}, []api.Instance{anInstance}},
		{"GET /v1/instances", func(x ctx, c cl) (any, error) { return c.Instances(x, client.AllProjects) }, []any{""}, []api.Instance{anInstance}},
		{"GET /v1/instances/:name", func(x ctx, c cl) (any, error) { return c.Instance(x, aRef) }, []any{aRef}, anInstance},
		{"GET /v1/instances/:name", func(x ctx, c cl) (any, error) { return c.Instance(x, api.Ref{Name: "100%"}) }, []any{api.Ref{Project: "default", Name: "100%"}}, anInstance},
		{"GET /v1/instances/:name/disks", func(x ctx, c cl) (any, error) { return c.Disks(x, aRef) }, []any{aRef}, []api.Disk{{Target: "vda", Chain: []api.Layer{aLayer}}}},
		{"POST /v1/instances", func(x ctx, c cl) (any, error) { return c.Create(x, "blue", create, "k1") }, []any{"blue", create, "k1"}, anOp},
		{"DELETE /v1/instances/:name", func(x ctx, c cl) (any, error) { return c.Delete(x, aRef, api.DeleteRequest{KeepVolumes: true}, "") }, []any{aRef, api.DeleteRequest{KeepVolumes: true}, ""}, anOp},
		{"POST /v1/instances/:name/start", func(x ctx, c cl) (any, error) { return c.Start(x, aRef, "k2") }, []any{aRef, "k2"}, anOp},
		{"POST /v1/instances/:name/stop", func(x ctx, c cl) (any, error) { return c.Stop(x, aRef, stop, "k3") }, []any{aRef, stop, "k3"}, anOp},
		{"POST /v1/instances/:name/restart", func(x ctx, c cl) (any, error) { return c.Restart(x, aRef, stop, "k3") }, []any{aRef, stop, "k3"}, anOp},
		{"POST /v1/instances/:name/rebuild/plan", func(x ctx, c cl) (any, error) { return c.PlanRebuild(x, aRef, aRebuild) }, []any{aRef, aRebuild}, aRebuildPlan},
		{"POST /v1/instances/:name/rebuild", func(x ctx, c cl) (any, error) { return c.Rebuild(x, aRef, aRebuild, "k7") }, []any{aRef, aRebuild, "k7"}, anOp},
		{"POST /v1/instances/:name/migrate/plan", func(x ctx, c cl) (any, error) { return c.Plan(x, aRef, aMigrate) }, []any{aRef, aMigrate}, aPlan},
		{"POST /v1/instances/:name/migrate", func(x ctx, c cl) (any, error) { return c.Migrate(x, aRef, aMigrate, "k4") }, []any{aRef, aMigrate, "k4"}, anOp},
		{"GET /v1/operations", func(x ctx, c cl) (any, error) {
			return c.Operations(x, client.OperationFilter{Project: "default", Instance: "vm1", Status: "running"})
		}, []any{"vm1", "running"}, []api.Operation{anOp}},
		{"GET /v1/operations/:id", func(x ctx, c cl) (any, error) { return c.Operation(x, "op1") }, []any{"get", "op1"}, anOp},
		{"GET /v1/operations/:id", func(x ctx, c cl) (any, error) { return c.OperationWait(x, "op1", time.Second) }, []any{"op1", time.Second}, anOp},
		{"GET /v1/operations/:id", func(x ctx, c cl) (any, error) { return c.OperationWait(x, "op1", time.Hour) }, []any{"op1", time.Minute}, anOp},
		{"DELETE /v1/operations/:id", func(x ctx, c cl) (any, error) { return c.Cancel(x, "op1") }, []any{"cancel", "op1"}, anOp},
		{"POST /v1/operations/:id/resolve", func(x ctx, c cl) (any, error) { return c.Resolve(x, "op1", aResolve, "k8") }, []any{"op1", aResolve}, anOp},
		{"GET /v1/templates", func(x ctx, c cl) (any, error) { return c.Templates(x) }, nil, []api.Template{aTemplate}},
		{"GET /v1/templates", func(x ctx, c cl) (any, error) { return c.UnownedFiles(x) }, nil, []api.UnownedFile{anUnowned}},
		{"GET /v1/templates/:id", func(x ctx, c cl) (any, error) { return c.Template(x, "rocky9") }, []any{"get", "rocky9"}, aTemplate},
		{"POST /v1/templates", func(x ctx, c cl) (any, error) { return c.RegisterTemplate(x, aTemplateRequest, "k5") }, []any{aTemplateRequest, "k5"}, anOp},
		{"DELETE /v1/templates/:id", func(x ctx, c cl) (any, error) { return c.RemoveTemplate(x, "rocky9") }, []any{"remove", "rocky9"}, aTemplate},
		{"POST /v1/templates/:id/scrub", func(x ctx, c cl) (any, error) { return c.ScrubTemplate(x, "rocky9", "k6") }, []any{"scrub", "rocky9", "k6"}, anOp},
		{"POST /v1/templates/:id/retry", func(x ctx, c cl) (any, error) { return c.RetryTemplate(x, "rocky9", "k6") }, []any{"retry", "rocky9", "k6"}, anOp},
		{"GET /v1/leftovers", func(x ctx, c cl) (any, error) { return c.Leftovers(x) }, []any{"leftovers"}, allLeft},
		{"DELETE /v1/leftovers", func(x ctx, c cl) (any, error) { return c.DeleteLeftovers(x, chosen) }, []any{chosen}, deleted},
		{"POST /v1/targets", func(x ctx, c cl) (any, error) { return c.ModifyTargets(x, someTargets) }, []any{someTargets}, connected},
		{"POST /v1/incoming/facts", func(x ctx, c cl) (any, error) { return c.Facts(x, aFactsRequest) }, []any{aFactsRequest}, someFacts},
		{"POST /v1/incoming", func(x ctx, c cl) (any, error) { return c.Reserve(x, aReservation) }, []any{aReservation}, anIncoming},
		{"GET /v1/incoming/:id", func(x ctx, c cl) (any, error) { return c.Incoming(x, "in1") }, []any{"get", "in1"}, anIncoming},
		{"POST /v1/incoming/:id/renew", func(x ctx, c cl) (any, error) { return c.Renew(x, "in1") }, []any{"renew", "in1"}, anIncoming},
		{"POST /v1/incoming/:id/commit", func(x ctx, c cl) (any, error) { return c.Commit(x, "in1", commit) }, []any{"in1", commit}, anIncoming},
		{"POST /v1/incoming/:id/settle", func(x ctx, c cl) (any, error) { return c.Settle(x, "in1", aSettle) }, []any{"in1", aSettle}, anIncoming},
		{"DELETE /v1/incoming/:id", func(x ctx, c cl) (any, error) { return nil, c.RemoveIncoming(x, "in1") }, []any{"remove", "in1"}, nil},
		{"GET /livez", func(x ctx, c cl) (any, error) { return nil, c.Live(x) }, nil, nil},
		{"GET /readyz", func(x ctx, c cl) (any, error) { return nil, c.Ready(x) }, []any{"ready"}, nil},
		{"GET /metrics", func(x ctx, c cl) (any, error) { b, err := c.Metrics(x); return string(b), err }, []any{"metrics"}, "up 1\n"},
	}
}

var (
	aResolve = api.ResolveRequest{Keep: api.SideDestination, OtherHost: api.OtherHasIt}
	aSettle  = api.SettleRequest{Act: api.SettleHold, Why: "it is on neither host"}
)

// sameOnTheWire takes a missing list or map and an empty one for the same.
var sameOnTheWire = cmpopts.EquateEmpty()

func TestEveryCallCrossesWhole(t *testing.T) {
	a, s := newAgent(t), &seen{}
	rows := everyCall(a, s)
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	for _, row := range rows {
		t.Run(row.route, func(t *testing.T) {
			s.note()
			got, err := row.call(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(row.wants, s.args, sameOnTheWire); d != "" {
				t.Errorf("the service was called with (+), not with (-): %s", d)
			}
			if d := cmp.Diff(row.answer, got, sameOnTheWire); d != "" {
				t.Errorf("the client got (+), not (-): %s", d)
			}
		})
	}
	// Streams have tests of their own.
	covered := []string{"GET /v1/events", "GET /v1/templates/:id/content", "HEAD /v1/templates/:id/content", "GET /v1/openapi.yaml"}
	for _, row := range rows {
		covered = append(covered, row.route)
	}
	for _, r := range a.server.Routes() {
		if !slices.Contains(covered, r[0]+" "+r[1]) {
			t.Errorf("%s %s is called by no test", r[0], r[1])
		}
	}
}

func TestOperationsAreAcceptedWithTheirLocation(t *testing.T) {
	a := newAgent(t)
	a.actions.StartFn = func(context.Context, api.Ref, api.Idempotency) (api.Operation, error) { return anOp, nil }
	a.incoming.ReserveFn = func(context.Context, api.IncomingRequest) (api.Incoming, error) { return anIncoming, nil }
	a.serve(t, wherry.Listeners{})
	got := a.raw(t, "POST", "/v1/instances/vm1/start", "")
	if got.StatusCode != http.StatusAccepted || got.Header.Get("Location") != "/v1/operations/01JD7ZK3M8" {
		t.Errorf("start: %s at %q", got.Status, got.Header.Get("Location"))
	}
	body, err := json.Marshal(aReservation)
	if err != nil {
		t.Fatal(err)
	}
	got = a.raw(t, "POST", "/v1/incoming", string(body))
	if got.StatusCode != http.StatusCreated || got.Header.Get("Location") != "/v1/incoming/in1" {
		t.Errorf("reserve: %s at %q", got.Status, got.Header.Get("Location"))
	}
}

// Without the store there is no operation to be found; the status is.
func TestShutdownWithoutAnOperation(t *testing.T) {
	a := newAgent(t)
	a.shutdowns.ShutdownFn = func(context.Context, api.ShutdownRequest, api.Idempotency) (api.Operation, error) {
		return api.Operation{Kind: "host-shutdown", Status: api.StatusRunning, Steps: []api.Step{}}, nil
	}
	a.serve(t, wherry.Listeners{})
	got := a.raw(t, "POST", "/v1/host/shutdown", "")
	if got.StatusCode != http.StatusAccepted || got.Header.Get("Location") != "/v1/host/shutdown" {
		t.Errorf("%s at %q", got.Status, got.Header.Get("Location"))
	}
	for body, path := range map[string]string{
		`{"timeout": 5}`:     "/v1/host/shutdown",
		`{"timeout": "-5s"}`: "/v1/host/shutdown",
		`{"name": "vm1"}`:    "/v1/host/hook",
		`{"name": "vm1", "uuid": "5b7c1a9e-3f6d-4e55-9f1c-0d7a51a0c001", "operation": "prepare"}`: "/v1/host/hook",
	} {
		if got := a.raw(t, "POST", path, body); got.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %s: %s", path, body, got.Status)
		}
	}
	for _, body := range []string{`{"priority": 1000001}`, `{"timeout": "25h"}`, `{"action": "kick"}`, ``} {
		if got := a.raw(t, "PUT", "/v1/instances/vm1/stop-policy", body); got.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", body, got.Status)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	a := newAgent(t)
	a.instances.ListFn = func(context.Context, string) ([]api.Instance, error) { return nil, nil }
	a.instances.DisksFn = func(context.Context, api.Ref) ([]api.Disk, error) { return []api.Disk{{Target: "sda"}}, nil }
	a.serve(t, wherry.Listeners{})
	for path, want := range map[string]string{
		"/v1/instances":           `{"instances":[]}`,
		"/v1/instances/vm1/disks": `"chain":[]`,
	} {
		if got := a.raw(t, "GET", path, ""); !strings.Contains(string(got.body), want) {
			t.Errorf("%s: %s, not %s", path, got.body, want)
		}
	}
}
