package incoming

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

const bucket = "incoming"

// States of a reservation.
const (
	preparing = "preparing"
	ready     = "ready"
	failed    = "failed"
	committed = "committed"
)

// reservation is what the journal keeps.
type reservation struct {
	Request api.IncomingRequest `json:"request"`
	State   string              `json:"state"`
	Lease   time.Time           `json:"lease"`
	Volumes []madeVolume        `json:"volumes"`
	Places  []api.IncomingPlace `json:"places"`
	Error   *api.Problem        `json:"error,omitempty"`
	EndedAt time.Time           `json:"ended_at"`
	// Alone: it was committed without its source, which has not heard of that yet.
	Alone bool `json:"alone,omitempty"`
	// Heard is when the source of such a one has.
	Heard time.Time `json:"heard,omitzero"`
	// Ran: the guest was seen here, running or shut down after it had. What it
	// wrote is nowhere else.
	Ran bool `json:"ran,omitempty"`
	// Held: the lease's end does not end it, someone must decide first.
	Held *hold `json:"held,omitempty"`
	// Choice is what was decided here, from before it is acted on.
	Choice *api.ResolveRequest `json:"choice,omitempty"`
	// Downtime and Memory are the finished migration's.
	Downtime time.Duration `json:"downtime"`
	// Lost are the volumes that were gone when the instance had arrived.
	Lost   []api.Reason `json:"lost,omitempty"`
	Memory int64        `json:"memory"`
	// Owes: it was to be taken back, and something may be left; Error says what.
	Owes bool `json:"owes,omitempty"`
}

// madeVolume is a file of the reservation. Temp is written down before the
// file exists, under a name that holds the reservation's id and so is nobody
// else's; Owned follows before the first byte and before the file gets its
// final name.
type madeVolume struct {
	Target string `json:"target"`
	Temp   string `json:"temp"`
	// Folder is where the file is made, written down with Temp.
	Folder *volume.Owned `json:"folder,omitempty"`
	// Names are those that the file may have been given since.
	Names []string      `json:"names"`
	Owned *volume.Owned `json:"owned,omitempty"`
}

// entry is a reservation in memory.
type entry struct {
	id       string
	mu       sync.Mutex // guards what follows
	res      reservation
	progress api.Progress
	gone     bool // from the journal: whoever still has it writes nothing more
	// end serialises the ways in which a reservation ends.
	end sync.Mutex
	// sweeping: a sweep is looking at it.
	sweeping atomic.Bool
	ctx      context.Context    // of the preparation
	cancel   context.CancelFunc // stops it
	created  chan struct{}      // closed when the places are known, or preparation ended
	done     chan struct{}      // closed when the preparation ended
}

// load reads the journal.
func (s *Service) load() error {
	err := s.Store.List(bucket, func(key string, value []byte) error {
		var r reservation
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("reservation %s in the store is damaged: %w", key, err)
		}
		if r.State == preparing {
			// Its preparation died with the agent; the source will be told.
			r.State = failed
			r.Error = api.NewProblem("interrupted", "the destination's agent was restarted while it prepared")
		}
		r.Lease = s.Now().Add(s.leaseOf(r.Request))
		closed := make(chan struct{})
		close(closed)
		s.entries[key] = &entry{id: key, res: r, cancel: func() {}, created: closed, done: closed}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading reservations: %w", err)
	}
	return nil
}

func (s *Service) leaseOf(r api.IncomingRequest) time.Duration {
	return min(max(r.Lease.Or(s.Lease), 2*time.Second), 10*time.Minute)
}

// update changes a reservation and journals it before anyone acts on it.
func (s *Service) update(e *entry, change func(*reservation)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return errGone(e.id)
	}
	next := e.res
	change(&next)
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encoding reservation %s: %w", e.id, err)
	}
	if err := s.Store.Put(bucket, e.id, data); err != nil {
		return fmt.Errorf("journalling reservation %s: %w", e.id, err)
	}
	e.res = next
	return nil
}

// extend begins a new lease, in memory only, and tells whether the reservation is
// held for no other reason than that its source was silent.
func (s *Service) extend(e *entry) (heldForSilence bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.res.Lease = s.Now().Add(s.leaseOf(e.res.Request))
	return e.res.Held != nil && !e.res.Held.BySource
}

// drop takes a reservation out of the journal, for good, and forgets it.
func (s *Service) drop(e *entry) error {
	e.mu.Lock()
	err := s.Store.Delete(bucket, e.id)
	e.gone = err == nil
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("forgetting reservation %s: %w", e.id, err)
	}
	s.forget(e.id)
	return nil
}

// errGone is said of a reservation that is not here, or not any more.
func errGone(id string) *api.Problem {
	return api.NewProblem("not-found", "no reservation %q here", id)
}

// dropped tells whether the reservation was dropped.
func (e *entry) dropped() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gone
}

func (e *entry) snapshot() reservation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.res
}

func (e *entry) setProgress(p api.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress = p
}

func (s *Service) find(id string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[id]
	if !ok {
		return nil, errGone(id)
	}
	return e, nil
}

// all gives the reservations of this moment.
func (s *Service) all() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.entries))
}

// holder says which reservation has the instance, or nil.
func (s *Service) holder(project, name string) *api.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.entries {
		r := e.snapshot()
		if r.State != committed && r.Request.Name == name && r.Request.Project == project {
			return r.inTheWay(id)
		}
	}
	return nil
}

// inTheWay tells who comes with the same instance what becomes of the reservation
// that has it. Of one that has failed the source knows nothing any more.
func (r reservation) inTheWay(id string) *api.Problem {
	var p *api.Problem
	switch {
	case r.Owes && r.Error != nil:
		p = api.NewProblem("busy", "the destination has not taken back all that it made for %q in operation %s: %s", r.Request.Name, id, r.Error.Detail).WithHint("%s", r.Error.Hint)
	case r.Held != nil:
		p = api.NewProblem("busy", "the destination holds %q of operation %s until somebody decides: %s", r.Request.Name, id, r.Held.Why).
			WithHint("settle that operation on its source, or, where that is lost, on the destination: `wherry operation info %s` there shows how", id)
	default:
		p = api.NewProblem("busy", "the destination is already receiving %q in operation %s", r.Request.Name, id)
	}
	return p.WithOperation(id)
}

// Arriving is "busy" while an instance is on its way to this host, and until its
// source has confirmed that it is here: what it stands on, its record and its old
// disks are the migration's for so long. It can be stopped.
func (s *Service) Arriving(ref api.Ref) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.entries {
		r := e.snapshot()
		if r.Request.Project == ref.Project && r.Request.Name == ref.Name && r.State != committed && r.State != failed {
			return api.NewProblem("busy", "%q is arriving on this host, by migration %s", ref.Name, id).WithOperation(id).
				WithHint("wait until that is over: `wherry operation info %s` on its source", id)
		}
	}
	return nil
}

// Unsettled is "busy" while somebody must decide where an instance that has come
// to this host goes on: started here, it could run twice. It can be stopped.
func (s *Service) Unsettled(ref api.Ref) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.entries {
		r := e.snapshot()
		if r.Request.Project == ref.Project && r.Request.Name == ref.Name && r.State != committed && r.Held != nil {
			return r.inTheWay(id)
		}
	}
	return nil
}

// view is the reservation as the wire shows it.
func (s *Service) view(ctx context.Context, e *entry) api.Incoming {
	r := e.snapshot()
	e.mu.Lock()
	progress := e.progress
	e.mu.Unlock()
	in := api.Incoming{ID: e.id, Operation: r.Request.Operation, Project: r.Request.Project, Name: r.Request.Name,
		UUID: r.Request.UUID, State: r.State, Lease: r.Lease, LibvirtURI: s.LibvirtURI, Disks: r.Places, Error: r.Error, Progress: progress}
	if in.Disks == nil {
		in.Disks = []api.IncomingPlace{}
	}
	if s.Address != "" {
		in.DataURI = "tcp://" + s.Address
	}
	if r.State == ready {
		in.Progress, in.Lost = allocated(r), lost(r)
	}
	if r.State == committed {
		in.Lost = r.Lost // as it was then: since that it is the instance's own affair
	}
	in.Downtime, in.MemoryBytes = api.Duration(r.Downtime), r.Memory
	in.Domain, in.Reason, in.Running = s.domain(ctx, r.Request)
	if r.Held != nil {
		// Facts for whoever decides. Looking through all processes is not for
		// every renewal.
		in.Held, in.Process = r.Held.Why, s.process(r.Request)
	}
	return in
}

// allocated says how much of each volume is allocated by now. While libvirt copies
// every layer, QEMU counts holes as work; this counts what has really come.
func allocated(r reservation) api.Progress {
	var p api.Progress
	for _, v := range r.Volumes {
		if v.Owned == nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(v.Owned.Path, &st); err != nil || st.Ino != v.Owned.Ino {
			continue
		}
		p.Disks = append(p.Disks, api.PartProgress{Target: v.Target, BytesDone: st.Blocks * 512})
		p.BytesDone += st.Blocks * 512
	}
	return p
}
