package daemon

import (
	"context"
	"errors"
	"testing"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// A caller that lost the answer asks again, while the instance is arriving here by
// then: it gets the operation, not a refusal. A new request is refused.
func TestTheSameRequestPassesTheGate(t *testing.T) {
	engine, err := operation.Open(operation.Options{Store: store.Memory()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	var refusal error
	g := gate{earlier: engine.Earlier}
	request := func(key string) (api.Operation, error) {
		k := api.Idempotency{Key: key, Fingerprint: "the same"}
		return g.admit(t.Context(), k, refusal, func() (api.Operation, error) {
			return engine.Start(t.Context(), operation.Spec{Kind: "delete", Project: "default", Instance: "vm", Key: k},
				func(context.Context, *operation.Op) (any, error) { return nil, nil })
		})
	}
	first, err := request("one")
	if err != nil {
		t.Fatal(err)
	}
	refusal = errors.New("it is arriving here")
	again, err := request("one")
	if err != nil || again.ID != first.ID {
		t.Errorf("again: %q (%v); want operation %q", again.ID, err, first.ID)
	}
	for _, key := range []string{"another", ""} {
		if _, err := request(key); !errors.Is(err, refusal) {
			t.Errorf("another with key %q: %v; want it refused", key, err)
		}
	}
}

// What has come here and waits for a decision may run at its source: it is not
// started beside that, nor is anything else while the host goes down.
func TestNothingUndecidedIsStarted(t *testing.T) {
	undecided, draining := errors.New("undecided"), errors.New("draining")
	for _, c := range []struct{ undecided, draining, want error }{
		{nil, nil, nil}, {undecided, nil, undecided}, {nil, draining, draining}, {undecided, draining, undecided},
	} {
		g := gatedActions{gate: gate{draining: func() error { return c.draining }, undecided: func(ref api.Ref) error {
			if ref.Name != "vm" {
				t.Errorf("asked for %q", ref)
			}
			return c.undecided
		}, earlier: func(context.Context, api.Idempotency) (api.Operation, bool, error) {
			return api.Operation{}, false, nil
		}}}
		ref := api.Ref{Project: "default", Name: "vm"}
		if got := g.starting(ref); !errors.Is(got, c.want) {
			t.Errorf("%v; want %v", got, c.want)
		}
		if c.want == nil {
			continue
		}
		if _, err := g.Start(t.Context(), ref, api.Idempotency{}); !errors.Is(err, c.want) {
			t.Errorf("start: %v", err)
		}
		if _, err := g.Restart(t.Context(), ref, api.StopRequest{}, api.Idempotency{}); !errors.Is(err, c.want) {
			t.Errorf("restart: %v", err)
		}
	}
}
