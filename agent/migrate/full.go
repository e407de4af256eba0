package migrate

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
)

// askFree bounds the question after the room at the destination: the answer
// only makes an error clearer.
const askFree = 5 * time.Second

// noSpace is a volume of the destination for which there was no room.
type noSpace struct {
	disk, host, pool, path string
	bytes                  int64 // that the disk had to move; 0 = not known
	free                   int64 // in the pool; negative = not known
}

// fullVolume finds in libvirt's words that a disk's copy had no room, and where
// that was. It only adds to an error, and decides nothing: libvirt has no code
// for it. A text that names none of several disks leaves the volume open.
func fullVolume(text string, disks []api.PlanDisk, places []api.IncomingPlace, host string) (f noSpace, ok bool) {
	if !strings.Contains(strings.ToLower(text), unix.ENOSPC.Error()) {
		return noSpace{}, false
	}
	f = noSpace{host: host, free: -1}
	var copied []api.PlanDisk
	for _, d := range disks {
		if d.Action != api.ActionCopy {
			continue
		}
		if mentions(text, d.Target) {
			copied = []api.PlanDisk{d}
			break
		}
		copied = append(copied, d)
	}
	if len(copied) != 1 {
		return f, len(copied) > 0
	}
	d := copied[0]
	f.disk, f.bytes = d.Target, d.Bytes
	if d.Destination != nil {
		f.pool, f.path = d.Destination.Pool, d.Destination.Path
	}
	for _, p := range places {
		if p.Target == d.Target {
			f.path = p.Path // it may have got another name
		}
	}
	return f, true
}

// detail says where there was no room.
func (f noSpace) detail() string {
	if f.disk == "" {
		return fmt.Sprintf("a volume of %q had no room there", f.host)
	}
	out := fmt.Sprintf("the volume of disk %q, %s, had no room on %q", f.disk, f.path, f.host)
	if f.pool != "" {
		out = fmt.Sprintf("the volume of disk %q, %s, had no room in pool %q of %q", f.disk, f.path, f.pool, f.host)
	}
	return out
}

// hint says what to do about it.
func (f noSpace) hint() string {
	where := fmt.Sprintf("the pools of %q", f.host)
	if f.pool != "" {
		where = fmt.Sprintf("pool %q of %q", f.pool, f.host)
	}
	var known []string
	if f.free >= 0 {
		known = append(known, fmt.Sprintf("%d bytes are free there now", f.free))
	}
	if f.bytes > 0 {
		known = append(known, fmt.Sprintf("the disk has %d to move", f.bytes))
	}
	if len(known) > 0 {
		where += " (" + strings.Join(known, ", ") + ")"
	}
	return "free space in " + where + ", or name another pool, and ask again"
}

// noRoom is fullVolume of this migration, with the room that there is now where
// the destination says.
func (m *migration) noRoom(ctx context.Context, err error) (noSpace, bool) {
	f, ok := fullVolume(err.Error(), m.state.Plan.Disks, m.state.Incoming.Disks, cmp.Or(m.state.Facts.Host.Name, m.state.Request.Destination))
	if !ok || f.pool == "" {
		return f, ok
	}
	ctx, cancel := context.WithTimeout(ctx, askFree)
	defer cancel()
	facts, err := m.peer.Facts(ctx, api.FactsRequest{Project: m.ref.Project, Name: m.ref.Name, UUID: m.state.UUID, Disks: []api.FactsDisk{}})
	if err != nil {
		return f, true
	}
	for _, p := range facts.Pools {
		if p.Name == f.pool {
			f.free = p.Free
		}
	}
	return f, true
}
