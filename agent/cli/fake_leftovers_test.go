package cli

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
)

type fakeLeftovers struct{ f *fake }

func (fakeLeftovers) List(context.Context) (api.LeftoverList, error) {
	const removes = "removes it, while it is the one that was seen and no process has it open"
	return api.LeftoverList{Leftovers: []api.Leftover{
		{Kind: api.LeftoverCopy, ID: "copy:6e0f4b2c-0000-4000-8000-000000000001", Instance: "vm2", Operation: "op-2", ModifiedAt: created, Made: true,
			Why: "operation op-2 has moved it to another host, which has confirmed it, and the copy that libvirt left here is paused", Delete: "ends the copy"},
		{Kind: api.LeftoverVolume, ID: "/images/.wherry-op-1-vda", Pool: "default", Path: "/images/.wherry-op-1-vda", Bytes: 50 << 20, ModifiedAt: created, Made: true, Why: "no instance names it", Delete: removes},
		{Kind: api.LeftoverFile, ID: "/images/old.qcow2", Pool: "default", Path: "/images/old.qcow2", Bytes: 1 << 30, ModifiedAt: created, Why: "no instance names it", Delete: removes},
	}, Skipped: []api.LeftoverSkipped{{What: "pool shared", Why: "its storage may be other hosts' too"}}}, nil
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
