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
