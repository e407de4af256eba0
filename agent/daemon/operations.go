package daemon

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
)

// operations are this host's own, and what has arrived here and needs a
// decision because its source is silent: whoever looks for such must find both.
type operations struct {
	*operation.Engine
	migrations *migrate.Service
	incoming   *incoming.Service
}

// Get gives an operation of this host, or a reservation that is, or was, held.
func (o operations) Get(ctx context.Context, id string) (api.Operation, error) {
	op, err := o.Engine.Get(ctx, id)
	return o.orHeld(ctx, id, op, err)
}

// Wait is Get once the operation has ended; a reservation is given as it is.
func (o operations) Wait(ctx context.Context, id string, d time.Duration) (api.Operation, error) {
	op, err := o.Engine.Wait(ctx, id, d)
	return o.orHeld(ctx, id, op, err)
}

// Cancel is the engine's; a reservation has nothing to cancel here, and is given
// as it is.
func (o operations) Cancel(ctx context.Context, id string) (api.Operation, error) {
	op, err := o.Engine.Cancel(ctx, id)
	return o.orHeld(ctx, id, op, err)
}

func (o operations) orHeld(ctx context.Context, id string, op api.Operation, err error) (api.Operation, error) {
	if api.CodeOf(err) != "not-found" {
		return op, err
	}
	if held, herr := o.incoming.Operation(ctx, id); herr == nil {
		return held, nil
	}
	return op, err
}

// List adds the reservations that are held, in the order of their creation.
func (o operations) List(ctx context.Context, instance, status string) ([]api.Operation, error) {
	ops, err := o.Engine.List(ctx, instance, status)
	if err != nil {
		return nil, err
	}
	for _, h := range o.incoming.Undecided(ctx) {
		if (status == "" || h.Status == status) && (instance == "" || instance == h.Instance || instance == h.Project+"/"+h.Instance) {
			ops = append(ops, h)
		}
	}
	slices.SortStableFunc(ops, func(a, b api.Operation) int { return strings.Compare(a.ID, b.ID) })
	return ops, nil
}

// Resolve settles an operation of this host, or what is held here.
func (o operations) Resolve(ctx context.Context, id string, r api.ResolveRequest) (api.Operation, error) {
	_, err := o.Engine.Get(ctx, id)
	if api.CodeOf(err) == "not-found" {
		op, err := o.incoming.Resolve(ctx, id, r)
		if api.CodeOf(err) == "not-found" {
			err = api.NewProblem("not-found", "neither an operation nor a reservation %q on this host", id).
				WithHint("a migration is settled on its source, or, where that is lost, on its destination; `wherry operation list --status needs_decision` lists what waits here")
		}
		return op, err
	}
	return o.migrations.Resolve(ctx, id, r)
}
