package daemon

import (
	"context"

	"github.com/wherry-kvm/wherry/agent/boot"
	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/agent/instance"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/rebuild"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// gate refuses requests before they are taken.
type gate struct {
	draining func() error
	arriving func(api.Ref) error
	// undecided refuses what may make a second running copy of what has come here.
	undecided func(api.Ref) error
	earlier   func(ctx context.Context, k api.Idempotency) (op api.Operation, found bool, err error)
}

// starting refuses to start what must not run here now.
func (g gate) starting(ref api.Ref) error {
	if err := g.undecided(ref); err != nil {
		return err
	}
	return g.draining()
}

// admit runs a request unless it is refused. One that is sent again gets what the
// first has begun, whatever has come to be since.
func (g gate) admit(ctx context.Context, k api.Idempotency, refusal error, run func() (api.Operation, error)) (api.Operation, error) {
	if refusal == nil {
		return run()
	}
	if op, found, err := g.earlier(ctx, k); found || err != nil {
		return op, err
	}
	return api.Operation{}, refusal
}

// gatedActions refuses at once what would be refused later. What the operator
// stops or deletes is not started again.
type gatedActions struct {
	*instance.Service
	gate
	starts *boot.Ledger
}

func (g gatedActions) Stop(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	if err := g.starts.Drop(ref); err != nil {
		return api.Operation{}, api.NewProblem("internal", "%w", err)
	}
	return g.Service.Stop(ctx, ref, r, k)
}

func (g gatedActions) Delete(ctx context.Context, ref api.Ref, r api.DeleteRequest, k api.Idempotency) (api.Operation, error) {
	return g.admit(ctx, k, g.arriving(ref), func() (api.Operation, error) {
		if err := g.starts.Drop(ref); err != nil {
			return api.Operation{}, api.NewProblem("internal", "%w", err)
		}
		return g.Service.Delete(ctx, ref, r, k)
	})
}

func (g gatedActions) Create(ctx context.Context, project string, r api.CreateRequest, k api.Idempotency) (api.Operation, error) {
	return g.admit(ctx, k, g.draining(), func() (api.Operation, error) { return g.Service.Create(ctx, project, r, k) })
}

func (g gatedActions) Start(ctx context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error) {
	return g.admit(ctx, k, g.starting(ref), func() (api.Operation, error) { return g.Service.Start(ctx, ref, k) })
}

func (g gatedActions) Restart(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
	return g.admit(ctx, k, g.starting(ref), func() (api.Operation, error) { return g.Service.Restart(ctx, ref, r, k) })
}

// gatedRebuilds leaves alone what is still arriving.
type gatedRebuilds struct {
	*rebuild.Service
	gate
}

func (g gatedRebuilds) Plan(ctx context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error) {
	if err := g.arriving(ref); err != nil {
		return api.RebuildPlan{}, err
	}
	return g.Service.Plan(ctx, ref, r)
}

func (g gatedRebuilds) Rebuild(ctx context.Context, ref api.Ref, r api.RebuildRequest, k api.Idempotency) (api.Operation, error) {
	return g.admit(ctx, k, g.arriving(ref), func() (api.Operation, error) { return g.Service.Rebuild(ctx, ref, r, k) })
}

// gatedMigrations: what leaves may not be there in time, and what is still
// arriving does not go on yet.
type gatedMigrations struct {
	*migrate.Service
	gate
}

func (g gatedMigrations) Migrate(ctx context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error) {
	refusal := g.arriving(ref)
	if refusal == nil {
		refusal = g.draining()
	}
	return g.admit(ctx, k, refusal, func() (api.Operation, error) { return g.Service.Migrate(ctx, ref, r, k) })
}

// gatedPower starts nothing while the host is draining, whatever operation
// wants it: one that began before may come to its start now.
type gatedPower struct {
	*hypervisor.Client
	refuse func() error
}

// Start refuses while the host is draining.
func (g gatedPower) Start(ctx context.Context, name string, paused bool) error {
	if err := g.refuse(); err != nil {
		return err
	}
	return g.Client.Start(ctx, name, paused)
}

// gatedIncoming takes no instance in. What was reserved before goes on: its
// source finds out when it is given back.
type gatedIncoming struct {
	*incoming.Service
	refuse func() error
}

func (g gatedIncoming) Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error) {
	if err := g.refuse(); err != nil {
		return api.Incoming{}, err
	}
	return g.Service.Reserve(ctx, r)
}
