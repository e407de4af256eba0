package migrate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

func TestFullVolume(t *testing.T) {
	disk := func(target, action string) api.PlanDisk {
		return api.PlanDisk{Target: target, Action: action, Bytes: 24 * mib,
			Destination: &api.DiskPlace{Pool: "second", Path: "/srv/second/" + target + ".qcow2"}}
	}
	two := []api.PlanDisk{disk("vda", api.ActionCopy), disk("vdb", api.ActionCopy)}
	places := []api.IncomingPlace{{Target: "vda", Path: "/srv/second/vda-2.qcow2"}}
	for _, c := range []struct {
		name, text   string
		disks        []api.PlanDisk
		free         int64
		disk         string
		detail, hint []string // nil = it is not that
	}{
		{"the disk is named", "migration of disk vda failed: No space left on device", two, 5, "vda",
			[]string{`"vda"`, "/srv/second/vda-2.qcow2", `pool "second"`, `"b"`}, []string{`free space in pool "second" of "b"`, "5 bytes are free", "25165824 to move", "ask again"}},
		{"the destination does not say what is free", "disk vdb: No space left on device", two, -1, "vdb",
			[]string{`"vdb"`, "/srv/second/vdb.qcow2"}, []string{`pool "second" of "b" (the disk has 25165824`}},
		{"the only disk that is copied", "mirror: No space left on device", []api.PlanDisk{disk("vda", api.ActionCopy), disk("vdb", "share")}, 0, "vda",
			[]string{`"vda"`}, []string{"0 bytes are free"}},
		{"one of two, not named", "mirror: No space left on device", two, -1, "", []string{`a volume of "b"`}, []string{`the pools of "b"`}},
		{"no disk is copied", "No space left on device", []api.PlanDisk{disk("vda", "share")}, -1, "", nil, nil},
		{"another error", "migration of disk vda failed: Input/output error", two, -1, "", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk, detail, hint, ok := migrate.FullVolume(c.text, c.disks, places, "b", c.free)
			if ok != (c.detail != nil) || disk != c.disk {
				t.Fatalf("full: %v, disk %q", ok, disk)
			}
			for _, want := range c.detail {
				if !strings.Contains(detail, want) {
					t.Errorf("detail %q does not say %q", detail, want)
				}
			}
			for _, want := range c.hint {
				if !strings.Contains(hint, want) {
					t.Errorf("hint %q does not say %q", hint, want)
				}
			}
			if c.free < 0 && strings.Contains(hint, "free there") {
				t.Errorf("hint %q says what nobody has told", hint)
			}
		})
	}
}

// A full pool is said with what to do about it, and where.
func TestFullDestinationSaysWhere(t *testing.T) {
	w := newWorld(t)
	w.mover.migrate = func(context.Context, hypervisor.MigrateParams) error {
		return errors.New("migration of disk vda failed: No space left on device")
	}
	p := w.fails(api.MigrateRequest{}, api.StatusFailed, "migration-failed", "perform")
	if p.Disk != "vda" || !strings.Contains(p.Detail, "No space left") || !strings.Contains(p.Detail, "had no room in pool") ||
		!strings.Contains(p.Hint, "bytes are free there now") || !strings.Contains(p.Hint, "runs on at the source") {
		t.Errorf("problem %+v", p)
	}
}
