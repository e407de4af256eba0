package incoming

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/queue"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// Hypervisor is what the package asks of libvirt. Errors are libvirt's own,
// wrapped; hypervisor.ErrNoDomain and hypervisor.ErrDown are told apart.
type Hypervisor interface {
	// Domains lists every domain of the host in one pass.
	Domains(ctx context.Context) ([]hypervisor.Domain, error)
	// Domain gives one domain, or hypervisor.ErrNoDomain.
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	// XML gives a domain's XML: the live one, or the one of its next start.
	XML(ctx context.Context, name string, inactive bool) (string, error)
	// CompareCPU says whether this host can run the CPU of a live domain.
	CompareCPU(ctx context.Context, domainXML string) (ok bool, detail string, err error)
	// RefreshPool makes libvirt list a pool anew: it trusts its cached listing.
	RefreshPool(ctx context.Context, name string) error
	// CompletedJob gives the figures of the migration that brought a domain.
	CompletedJob(ctx context.Context, name string) (hypervisor.Job, error)
}

// Host describes this host, each pool looked up once.
type Host interface {
	Host(ctx context.Context) (api.Host, error)
}

// Templates is what the package asks of the template registry.
type Templates interface {
	// ReadyByDigest gives the file of a ready copy with these bytes.
	ReadyByDigest(digest string) (path, id string, ok bool)
	// Stage brings a template from a peer and gives the path of its copy here.
	Stage(ctx context.Context, layer api.StageLayer, progress func(done, total int64)) (path string, err error)
	// PutRef notes that a volume stands on the copy of a template whose file is
	// base: updated where there is a ref, else inserted. The copy is kept from
	// then on. ref.Pool is filled in.
	PutRef(ctx context.Context, template, base string, ref api.TemplateRef) error
	// DropRef forgets the ref of a volume that is gone; none is no error.
	DropRef(ctx context.Context, volume string) error
}

// Store keeps the reservations across restarts.
type Store interface {
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	List(bucket string, fn func(key string, value []byte) error) error
}

// Targets disconnects what was connected for a reservation.
type Targets interface {
	Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}

// Options are the service's collaborators and settings.
type Options struct {
	Hypervisor Hypervisor
	Host       Host
	Templates  Templates
	Targets    Targets
	Power      Power
	Store      Store
	Records    record.Dir
	Digester   *volume.Digester
	Runner     volume.Runner
	// Busy gives the operation of this host that holds an instance, or "". One
	// that has left may not come back before its last operation has cleaned up:
	// that would take the record and the targets of the one that has returned.
	Busy func(ref api.Ref) string
	// Runs tells whether an instance has a QEMU process here, without libvirt;
	// nil = not asked.
	Runs       func(name, uuid string) (bool, error)
	Log        *slog.Logger
	Now        func() time.Time
	LibvirtURI string        // where the source's libvirt reaches this one
	Address    string        // where migration streams arrive; "" = libvirt's choice
	Graphics   string        // address that consoles of arriving instances listen on; "" = unchanged
	AtOnce     int           // instances that arrive at the same time; 0 = any number
	Lease      time.Duration // how long a reservation outlives its source's last word
}

// Service implements the incoming calls of the agent.
type Service struct {
	Options
	mu      sync.Mutex
	entries map[string]*entry
	door    queue.Door // guarded by mu
	work    sync.WaitGroup
	ctx     context.Context // ends with Close: stops preparations
	stop    context.CancelFunc
}

// New reads the reservations that an earlier run of the agent left. Their
// leases are given one more full term, so that a restart costs nobody theirs.
func New(ctx context.Context, o Options) (*Service, error) {
	s := &Service{Options: o, entries: map[string]*entry{}, door: queue.Door{Limit: o.AtOnce}}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.load(); err != nil {
		return nil, err
	}
	if err := s.loadLine(); err != nil {
		return nil, fmt.Errorf("reading who waits for a place: %w", err)
	}
	return s, nil
}

// Close stops preparations that are under way and waits for them. What they
// made stays in the journal.
func (s *Service) Close() {
	s.stop()
	s.work.Wait()
}
