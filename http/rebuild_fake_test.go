package http_test

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeRebuilds struct {
	PlanFn    func(ctx context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error)
	RebuildFn func(ctx context.Context, ref api.Ref, r api.RebuildRequest, k api.Idempotency) (api.Operation, error)
}

func (f *fakeRebuilds) Plan(ctx context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error) {
	return f.PlanFn(ctx, ref, r)
}

func (f *fakeRebuilds) Rebuild(ctx context.Context, ref api.Ref, r api.RebuildRequest, k api.Idempotency) (api.Operation, error) {
	return f.RebuildFn(ctx, ref, r, k)
}

var (
	aRebuild = api.RebuildRequest{
		Source: api.RebuildSource{Type: api.SourceTemplate, Template: "rocky10"}, Start: true, Force: true, Timeout: api.Duration(90 * time.Second), DiskSize: 20 << 30,
	}
	aRebuildPlan = api.RebuildPlan{
		Disk: "vda", Stop: true, Start: true, Fetch: true, Bytes: 1 << 20, Warnings: []string{"w"},
		Old: api.RebuildDisk{Path: "/images/vm1.qcow2", Pool: "default", Format: "qcow2", Size: 10 << 30, Allocated: 1 << 20, Clone: "linked", Template: "rocky9", Owned: true},
		New: api.RebuildDisk{Pool: "default", Format: "qcow2", Size: 20 << 30, Clone: "linked", Template: "rocky10", DirectDownload: true, Owned: true},
	}
)
