package operation_test

import (
	"testing"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestEarlier(t *testing.T) {
	e := open(t, store.Memory())
	key := api.Idempotency{Key: "k", Fingerprint: "one"}
	for _, k := range []api.Idempotency{{}, key} {
		if _, found, err := e.Earlier(t.Context(), k); found || err != nil {
			t.Errorf("%+v before anything: %t, %v", k, found, err)
		}
	}
	op := run(t, e, operation.Spec{Kind: "rebuild", Instance: "vm1", Key: key}, nothing)
	got, found, err := e.Earlier(t.Context(), key)
	if !found || err != nil || got.ID != op.ID || got.Status != api.StatusSucceeded {
		t.Errorf("%+v, %t, %v; want operation %s as it ended", got, found, err, op.ID)
	}
	_, _, err = e.Earlier(t.Context(), api.Idempotency{Key: "k", Fingerprint: "two"})
	code(t, err, "idempotency-reuse")
}
