package http_test

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeLeftovers struct {
	ListFn   func(ctx context.Context) (api.LeftoverList, error)
	DeleteFn func(ctx context.Context, paths []string) (api.LeftoversDeleted, error)
}

func (f *fakeLeftovers) List(ctx context.Context) (api.LeftoverList, error) { return f.ListFn(ctx) }

func (f *fakeLeftovers) Delete(ctx context.Context, paths []string) (api.LeftoversDeleted, error) {
	return f.DeleteFn(ctx, paths)
}

var (
	aLeftover = api.Leftover{Kind: api.LeftoverVolume, ID: "/images/.wherry-01JD-vda", Pool: "default", Path: "/images/.wherry-01JD-vda", Bytes: 4096, Made: true, Why: "no instance names it", Delete: "removes the file"}
	allLeft   = api.LeftoverList{Leftovers: []api.Leftover{aLeftover}, Skipped: []api.LeftoverSkipped{{What: "pool shared", Why: "other hosts may have it"}}}
	deleted   = api.LeftoversDeleted{Deleted: []string{aLeftover.Path}, Kept: []api.LeftoverKept{{Path: "/images/vm.qcow2", Why: "it has an owner"}}}
	chosen    = []string{aLeftover.Path, "secret:6e0f4b2c", "/images/vm.qcow2"}
)
