package instance

import (
	"context"
	"log/slog"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/power"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

// Hypervisor is what the package reads of libvirt.
type Hypervisor interface {
	Domains(ctx context.Context) ([]hypervisor.Domain, error)
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	XML(ctx context.Context, name string, inactive bool) (string, error)
	Snapshots(ctx context.Context, name string) ([]string, error)
	WaitState(ctx context.Context, name string, states ...hypervisor.State) (hypervisor.Domain, error)
	RefreshPool(ctx context.Context, name string) error
}

// Power defines and runs domains.
type Power interface {
	Define(ctx context.Context, xml string) error
	Undefine(ctx context.Context, name string) error
	Start(ctx context.Context, name string, paused bool) error
	Destroy(ctx context.Context, name string) error
}

// Inspector looks at an instance's disks.
type Inspector interface {
	Inspect(ctx context.Context, ref api.Ref, pools []api.Pool) (inspect.Instance, error)
}

// Host describes this host.
type Host interface {
	Host(ctx context.Context) (api.Host, error)
}

// Templates is what an instance needs of the registry.
type Templates interface {
	// Ready gives a template that is ready on this host, with the file of its
	// copy; the error says which state it is in.
	Ready(ctx context.Context, id string) (t api.Template, path string, err error)
	// Collected gives a template whose copy was deleted because nothing stood
	// on it; Bring fetches it again, and blocks until it is ready or cannot be.
	Collected(id string) (t api.Template, ok bool)
	Bring(ctx context.Context, id string, report func(done, total int64)) error
	// PutRef notes that a volume stands on the copy of a template whose file is
	// base; the copy is kept from then on. ref.Pool is filled in.
	PutRef(ctx context.Context, template, base string, ref api.TemplateRef) error
	DropRef(ctx context.Context, volume string) error
	// Health tells, without looking at any disk, for which instances an image
	// that they stand on is gone or has changed, and in plain words which.
	Health() map[api.Ref][]string
	// Lost looks at the copy whose file a path is, and says of one that nothing
	// may start on which template's it is, what has become of it, and when it is
	// tried again. false: it is sound, or no copy.
	Lost(path string) (why string, lost bool)
}

// Chains tells what instances stand on.
type Chains interface {
	// Next gives what the next start of an instance will open, as far as it can
	// be read; it does not wait for long.
	Next(ctx context.Context, d hypervisor.Domain) (template.Chains, error)
}

// Targets connects an instance's storage.
type Targets interface {
	Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}

// Ladder brings an instance down; package power has it.
type Ladder interface {
	// Down returns a problem, and what was tried, where the instance goes on.
	Down(ctx context.Context, name, uuid string, o power.Options) (power.Result, error)
}

// Observer hears how instances were stopped, for metrics.
type Observer interface {
	Stop(rung string, d time.Duration)
	ForcedStop()
}

// Options are the service's collaborators.
type Options struct {
	Hypervisor  Hypervisor
	Power       Power
	Ladder      Ladder
	Cleaner     cleanup.Cleaner
	Inspector   Inspector
	Host        Host
	Templates   Templates
	Chains      Chains
	Targets     Targets
	Observer    Observer
	Records     record.Dir
	Operations  *operation.Engine
	Runner      volume.Runner
	Log         *slog.Logger
	Now         func() time.Time
	DefaultPool string
	// Refuse says why the host starts nothing now, since it is being shut down;
	// nil where it does.
	Refuse func() error
}

// Service answers the instance calls of the agent.
type Service struct{ Options }

// New makes the service and registers how its operations are recovered.
func New(o Options) *Service {
	if o.Refuse == nil {
		o.Refuse = func() error { return nil }
	}
	s := &Service{Options: o}
	o.Operations.Recover(kindCreate, s.recoverCreate)
	o.Operations.Recover(kindStart, s.recoverStart)
	o.Operations.Recover(kindStop, s.recoverStop)
	o.Operations.Recover(kindRestart, s.recoverRestart)
	return s
}
