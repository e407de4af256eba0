package rebuild

import (
	"context"
	"log/slog"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/template"
)

// Kind is that of the operations.
const Kind = "rebuild"

// Hypervisor is what a rebuild asks of libvirt. Errors are those of package
// hypervisor: ErrNoDomain, ErrDown.
type Hypervisor interface {
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	// XML gives the live XML, or the one of the next start.
	XML(ctx context.Context, name string, inactive bool) (string, error)
	Snapshots(ctx context.Context, name string) ([]string, error)
	// Checkpoints names those that incremental backups begin at.
	Checkpoints(ctx context.Context, name string) ([]string, error)
	// Saved tells whether libvirt keeps the memory of a stopped instance.
	Saved(ctx context.Context, name string) (bool, error)
	// WaitState waits out an interrupted connection.
	WaitState(ctx context.Context, name string, states ...hypervisor.State) (hypervisor.Domain, error)
	RefreshPool(ctx context.Context, name string) error
}

// Definer replaces the definition of an instance. An error may hide a success.
type Definer interface {
	Define(ctx context.Context, xml string) error
}

// Power stops and starts an instance for an operation that holds it.
type Power interface {
	// Down brings the instance down as the request says, with what is owed to
	// it afterwards, and says how. Called again for the same operation it goes
	// on where it was, with the new OnTimeout. One that does not run is success;
	// one that is not down in its time, and not to be forced, is "timeout".
	Down(ctx context.Context, op *operation.Op, uuid string, r api.StopRequest) (api.StopResult, error)
	// Up starts it; one that runs is success.
	Up(ctx context.Context, ref api.Ref) error
}

// Templates is what a rebuild needs of the registry.
type Templates interface {
	// Record gives a template as it is registered here, removed ones too.
	Record(id string) (api.Template, bool)
	// Ready gives a template and the file of a copy that may be used; the error
	// says why there is none.
	Ready(ctx context.Context, id string) (api.Template, string, error)
	// Bring fetches what is not ready.
	Bring(ctx context.Context, id string, report func(done, total int64)) error
	// RefOf gives the template that a volume is recorded to stand on.
	RefOf(volume string) (id string, ok bool)
	PutRef(ctx context.Context, template, base string, ref api.TemplateRef) error
	// DropRef forgets the ref of a volume; none is no error.
	DropRef(ctx context.Context, volume string) error
}

// Bases knows which files are template copies.
type Bases interface {
	ByPath(path string) (id string, direct, ok bool)
}

// Chains reads what the volumes of this host stand on.
type Chains interface {
	// ReadAll gives the chains of all instances, and of what lies in the pools.
	ReadAll(ctx context.Context) (template.Chains, error)
}

// Digester gives the digest of a file ("sha256:...").
type Digester interface {
	Digest(ctx context.Context, path string) (string, error)
}

// Keeper writes records; record.Dir does.
type Keeper interface {
	Write(r api.Record) error
	Remove(ref api.Ref) error
}

// Host describes this host.
type Host interface {
	Host(ctx context.Context) (api.Host, error)
}

// Options are the service's collaborators. Keeper, Refuse, Free and Room have
// defaults.
type Options struct {
	Hypervisor Hypervisor
	Definer    Definer
	Power      Power
	Templates  Templates
	Bases      Bases
	Chains     Chains
	Digester   Digester
	Host       Host
	Volumes    Volumes
	Records    record.Dir
	Keeper     Keeper
	Operations *operation.Engine
	Log        *slog.Logger
	Now        func() time.Time
	// Free gives the bytes that are left for us where a folder lies.
	Free func(folder string) (int64, error)
	// Refuse says why the host rebuilds nothing now; nil where it does. A guest
	// that was stopped for it could not be started again.
	Refuse func() error
	// Room says why no file of so many bytes can be made in a folder, which it
	// leaves as it is.
	Room func(folder string, size int64) error
}

// Service rebuilds instances.
type Service struct{ Options }

// New makes the service and registers how its operations are recovered.
func New(o Options) *Service {
	if o.Keeper == nil {
		o.Keeper = o.Records
	}
	if o.Refuse == nil {
		o.Refuse = func() error { return nil }
	}
	if o.Free == nil {
		o.Free = free
	}
	if o.Room == nil {
		o.Room = room
	}
	s := &Service{Options: o}
	o.Operations.Recover(Kind, s.recover)
	return s
}

// Plan says what a rebuild would do, and does nothing. It returns "busy" while
// an operation holds the instance, "precondition" with every reason, and what
// Refuse says.
func (s *Service) Plan(ctx context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error) {
	if err := s.Refuse(); err != nil {
		return api.RebuildPlan{}, err
	}
	if err := s.busy(ref); err != nil {
		return api.RebuildPlan{}, err
	}
	f, err := s.gather(ctx, ref, r)
	if err != nil {
		return api.RebuildPlan{}, err
	}
	p, reasons := Decide(f, r)
	return p.RebuildPlan, refusal(ref, reasons)
}

// Rebuild starts the rebuilding of an instance. What stands in the way is
// answered at once, as by Plan, and looked at again when the instance is held.
func (s *Service) Rebuild(ctx context.Context, ref api.Ref, r api.RebuildRequest, k api.Idempotency) (api.Operation, error) {
	if op, found, err := s.Operations.Earlier(ctx, k); found || err != nil {
		return op, err
	}
	if _, err := s.Plan(ctx, ref, r); err != nil {
		return api.Operation{}, err
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: Kind, Project: ref.Project, Instance: ref.Name, Key: k, Request: r, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) {
			return (&rebuild{Service: s, op: op, ref: ref, r: r}).run(ctx)
		})
}

// busy is said before all else: what an operation is about to change is no
// ground to judge on. Short work is waited for by the engine.
func (s *Service) busy(ref api.Ref) error {
	l := s.Operations.LockOf(ref)
	if l == nil || l.Operation == "" {
		return nil
	}
	return api.NewProblem("busy", "instance %q is held by operation %s (%s)", ref, l.Operation, l.Kind).
		WithOperation(l.Operation).WithHint("wait for that operation, or cancel it")
}
