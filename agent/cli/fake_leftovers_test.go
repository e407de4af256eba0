package cli

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeLeftovers struct{ f *fake }

func (fakeLeftovers) List(context.Context) ([]api.Leftover, error) {
	return []api.Leftover{
		{Kind: api.LeftoverVolume, Pool: "default", Path: "/images/.wherry-op-1-vda", Bytes: 50 << 20, ModifiedAt: created, Made: true, Why: "no instance names it"},
		{Kind: api.LeftoverFile, Pool: "default", Path: "/images/old.qcow2", Bytes: 1 << 30, ModifiedAt: created, Why: "no instance names it"},
	}, nil
}

func (l fakeLeftovers) Delete(_ context.Context, paths []string) (api.LeftoversDeleted, error) {
	l.f.note("delete leftovers", paths)
	out := api.LeftoversDeleted{Deleted: []string{}, Kept: []api.LeftoverKept{}}
	for _, p := range paths {
		if p == "/images/vm1.qcow2" {
			out.Kept = append(out.Kept, api.LeftoverKept{Path: p, Why: "it is not left over: it has an owner, or is not there"})
			continue
		}
		out.Deleted = append(out.Deleted, p)
	}
	return out, nil
}
