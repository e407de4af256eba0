package operation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// An instance is taken from its operation, with the journal or without.
func TestSeize(t *testing.T) {
	for name, broken := range map[string]bool{"journalled": false, "without a store": true} {
		t.Run(name, func(t *testing.T) {
			s := &faulty{Store: store.Memory()}
			e := open(t, s)
			ended := make(chan struct{})
			start(t, e, claims(operation.ClaimStop), func(ctx context.Context, _ *operation.Op) (any, error) {
				defer close(ended)
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), operation.ErrCancelled) {
					t.Errorf("ended because of %v", context.Cause(ctx))
				}
				return nil, context.Cause(ctx)
			})
			if broken {
				s.set(errBroken)
			}
			release, from, err := e.Seize(t.Context(), api.Ref{Name: "vm"}, "host shutdown")
			if err != nil || from != operation.ClaimStop {
				t.Fatalf("from %q, %v", from, err)
			}
			select {
			case <-ended:
			default:
				t.Error("the operation works on")
			}
			if l := e.LockOf(api.Ref{Name: "vm"}); l == nil || l.Kind != "host shutdown" {
				t.Errorf("lock %+v", l)
			}
			release()
			if l := e.LockOf(api.Ref{Name: "vm"}); l != nil {
				t.Errorf("lock %+v after its release", l)
			}
		})
	}
}

// One that cannot be cancelled is waited for, and named when that is in vain.
func TestSeizeInVain(t *testing.T) {
	e := open(t, store.Memory())
	leave := make(chan struct{})
	op := start(t, e, operation.Spec{Kind: "create", Instance: "vm"}, func(context.Context, *operation.Op) (any, error) {
		<-leave
		return nil, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, from, err := e.Seize(ctx, api.Ref{Name: "vm"}, "host shutdown")
	if p := api.AsProblem(err); from != "create" || p == nil || p.Code != "busy" || p.Operation != op.ID {
		t.Errorf("from %q, %v; want busy by %s", from, err, op.ID)
	}
	close(leave)
	release, _, err := e.Seize(t.Context(), api.Ref{Name: "vm"}, "host shutdown")
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// One that opens the door later is cancelled then.
func TestSeizeWaitsForTheDoor(t *testing.T) {
	e := open(t, store.Memory())
	door := make(chan struct{})
	start(t, e, operation.Spec{Kind: "migrate", Instance: "vm"}, func(ctx context.Context, op *operation.Op) (any, error) {
		<-door
		op.Cancellable()
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	time.AfterFunc(10*time.Millisecond, func() { close(door) })
	release, from, err := e.Seize(t.Context(), api.Ref{Name: "vm"}, "host shutdown")
	if err != nil || from != operation.ClaimMigrate {
		t.Fatalf("from %q, %v", from, err)
	}
	release()
}
