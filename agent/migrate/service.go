package migrate

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/budget"
	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/queue"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/volume"
)

// Hypervisor is what a migration reads of libvirt.
type Hypervisor interface {
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	Domains(ctx context.Context) ([]hypervisor.Domain, error)
	XML(ctx context.Context, name string, inactive bool) (string, error)
	XMLMigratable(ctx context.Context, name string) (string, error)
	Snapshots(ctx context.Context, name string) ([]string, error)
	RefreshPool(ctx context.Context, name string) error
}

// Mover carries a domain to another host.
type Mover interface {
	Tuner
	// Migrate blocks until libvirt is done. When ctx ends it aborts and waits;
	// hypervisor.ErrAborted says that the domain runs on here,
	// hypervisor.ErrUnknownOutcome that only both hosts can tell.
	Migrate(ctx context.Context, name string, p hypervisor.MigrateParams) error
	Job(ctx context.Context, name string) (hypervisor.Job, error)
	BlockJobs(ctx context.Context, name string) ([]hypervisor.BlockJob, error)
	Abort(ctx context.Context, name string) error
	// Yank cuts the connections of the disk copies and tells how many. To be
	// done before Abort: on a dead network that would hold the guest up.
	Yank(ctx context.Context, name string) (int, error)
}

// Power acts on a copy of the instance on this host that must not run on.
type Power interface {
	// SentMark gives the mark of the last time that QEMU has handed the guest over
	// to another host whole; "" = it has not.
	SentMark(ctx context.Context, name string) (string, error)
	Suspend(ctx context.Context, name string) error
	Resume(ctx context.Context, name string) error
	Destroy(ctx context.Context, name string) error
	Undefine(ctx context.Context, name string) error
}

// Inspector looks at an instance's disks.
type Inspector interface {
	Inspect(ctx context.Context, ref api.Ref, pools []api.Pool) (inspect.Instance, error)
	RefMissing(d inspect.Disk, rec *api.Record) bool
}

// Host describes this host, each pool looked up once.
type Host interface {
	Host(ctx context.Context) (api.Host, error)
}

// Templates is what a migration asks of the registry.
type Templates interface {
	// Record gives a template as it is registered here.
	Record(id string) (api.Template, bool)
	// DropRef removes the ref of a volume; none is no error.
	DropRef(ctx context.Context, volume string) error
}

// Targets connects storage on this host.
type Targets interface {
	Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}

// Peer is another host's agent. Errors are *api.Problem; one that could not be
// reached has the code "peer-unreachable".
type Peer interface {
	Facts(ctx context.Context, r api.FactsRequest) (api.Facts, error)
	Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error)
	Renew(ctx context.Context, id string) (api.Incoming, error)
	Commit(ctx context.Context, id string, c api.CommitRequest) (api.Incoming, error)
	// Settle acts on a copy whose migration ended unclearly; its volumes stay.
	Settle(ctx context.Context, id string, r api.SettleRequest) (api.Incoming, error)
	Remove(ctx context.Context, id string) error
	Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}

// Observer hears of finished migrations, for metrics.
type Observer interface {
	MigrationDone(mode, result string, phases map[string]time.Duration, downtime time.Duration, disk, memory int64)
}

// Options are the service's collaborators and settings.
type Options struct {
	Hypervisor Hypervisor
	Mover      Mover
	Power      Power
	Inspector  Inspector
	Host       Host
	Templates  Templates
	Targets    Targets
	Records    record.Dir
	Digester   *volume.Digester
	Operations *operation.Engine
	// Line lets so many migrations begin at once; nil = all.
	Line *queue.Line
	// Budget is what all migrations may send together; nil = no limit.
	Budget *budget.Budget
	// Runs tells whether an instance has a QEMU process here, without libvirt;
	// nil = not asked.
	Runs func(name, uuid string) (bool, error)
	// Events gives what happens to this host's domains until ctx ends; nil = the
	// passes over memory are only looked for.
	Events func(ctx context.Context) <-chan hypervisor.Event
	// Guards see to it that libvirt starts no second copy; nil = nobody does.
	Guards       Guards
	Dial         func(url string) (Peer, error)
	Observer     Observer
	Log          *slog.Logger
	Now          func() time.Time
	SelfURL      string        // where peers reach this agent, for staging; "" = not at all
	TLS          bool          // encrypt what QEMU sends
	Timeout      time.Duration // of a whole migration unless the request says; 0 = none
	StallTimeout time.Duration // without one byte moved
	MaxDowntime  time.Duration // unless the request says; 0 = QEMU's own
	Patience     time.Duration // with memory that comes no nearer to its end; 0 = converge's own
	LastPatience time.Duration // before the last means; 0 = converge's own
	Bandwidth    int64         // bytes per second for each stream, unless the request says; 0 = none
	Lease        time.Duration // of the destination's reservation
	// DecisionTimeout is how long both hosts are asked where an instance is,
	// before a person is; 0 = two minutes.
	DecisionTimeout time.Duration
}

// Service plans and carries out migrations from this host.
type Service struct{ Options }

// New makes the service and registers how its operations are recovered.
func New(o Options) *Service {
	s := &Service{Options: o}
	if s.Line == nil {
		s.Line = queue.New(0)
	}
	if s.Budget == nil {
		s.Budget = budget.New(0)
	}
	if err := s.hold(); err != nil {
		s.Log.Error("looking for migrations under way", "error", err)
	}
	o.Operations.Recover(Kind, s.recover)
	return s
}

// Kind of the operation.
const Kind = "migrate"

// Plan decides about a migration and changes nothing. A refused plan is an
// error of code "refused" with every reason.
func (s *Service) Plan(ctx context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error) {
	m, err := s.newMigration(ref, r)
	if err != nil {
		return api.Plan{}, err
	}
	for _, step := range []func(context.Context) error{m.inspect, m.offer, m.decide} {
		if err := step(ctx); err != nil {
			return api.Plan{}, err
		}
	}
	return shown(m.state.Plan), nil
}

// shown leaves out of a plan what nobody may read.
func shown(p api.Plan) api.Plan {
	p.Disks = slices.Clone(p.Disks)
	for i := range p.Disks {
		if t := p.Disks[i].Connect; t != nil && t.CHAP != nil {
			open := *t
			open.CHAP = nil
			p.Disks[i].Connect = &open
		}
	}
	return p
}

// Migrate starts a migration. It returns when the plan is accepted, so that a
// refusal is the answer of the call itself, and the operation goes on.
func (s *Service) Migrate(ctx context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error) {
	m, err := s.newMigration(ref, r)
	if err != nil {
		return api.Operation{}, err
	}
	decided := make(chan error, 1)
	started := make(chan struct{})
	op, err := s.Operations.Start(ctx, operation.Spec{Kind: Kind, Project: ref.Project, Instance: ref.Name, Key: k, Request: r, Cancellable: true, Decidable: true},
		func(ctx context.Context, op *operation.Op) (any, error) {
			close(started)
			return m.run(ctx, op, decided)
		})
	if err != nil {
		return api.Operation{}, err
	}
	if op.ID == "" || op.Ended() {
		return op, nil
	}
	select {
	case <-started:
	case <-time.After(time.Second):
		return op, nil // the same request again: its operation runs already
	case <-ctx.Done():
		return op, nil
	}
	select {
	case err := <-decided:
		if err != nil {
			p := *api.AsProblem(err) // a copy: the operation is still busy with its own
			return api.Operation{}, p.WithOperation(op.ID)
		}
		return s.Operations.Get(ctx, op.ID)
	case <-ctx.Done():
		return op, nil
	}
}
