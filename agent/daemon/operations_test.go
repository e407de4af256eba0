package daemon

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/incoming"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// absent is a libvirt without the instance.
type absent struct{ incoming.Hypervisor }

func (absent) Domain(context.Context, string) (hypervisor.Domain, error) {
	return hypervisor.Domain{}, hypervisor.ErrNoDomain
}

// What has arrived and waits for a decision is found among the operations, by
// the id that it has at its source, and nothing else of the reservations is.
func TestHeldReservationsAreOperations(t *testing.T) {
	s := store.Memory()
	for id, held := range map[string]string{
		"01JZZZZZZZZZZZZZZZZZZZHELD": `,"held":{"why":"for a test","since":"2026-01-01T00:00:00Z"}`,
		"01JZZZZZZZZZZZZZZZZZZZFREE": "",
	} {
		must(t, s.Put("incoming", id, []byte(`{"state":"ready","request":{"operation":"`+id+`","project":"default","name":"vm","uuid":"u"}`+held+`}`)))
	}
	engine, err := operation.Open(operation.Options{Store: s})
	must(t, err)
	t.Cleanup(func() { must(t, engine.Close(context.WithoutCancel(t.Context()))) })
	own, err := engine.Start(t.Context(), operation.Spec{Kind: "test", Instance: "other"},
		func(context.Context, *operation.Op) (any, error) { return nil, errors.New("failed") })
	must(t, err)
	_, err = engine.Wait(t.Context(), own.ID, time.Minute)
	must(t, err)
	in, err := incoming.New(t.Context(), incoming.Options{Hypervisor: absent{}, Store: s, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer in.Close()
	o := operations{Engine: engine, incoming: in}
	for filter, want := range map[[2]string]int{
		{"", ""}: 2, {"vm", ""}: 1, {"default/vm", api.StatusNeedsDecision}: 1, {"other", ""}: 1, {"", api.StatusFailed}: 1, {"vm", api.StatusFailed}: 0,
	} {
		list, err := o.List(t.Context(), filter[0], filter[1])
		if err != nil || len(list) != want {
			t.Errorf("list %q: %+v, %v; want %d", filter, list, err, want)
		}
	}
	got, err := o.Get(t.Context(), "01JZZZZZZZZZZZZZZZZZZZHELD")
	if err != nil || got.Status != api.StatusNeedsDecision || got.Error.Detail != "for a test" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := o.Wait(t.Context(), got.ID, time.Minute); err != nil || got.Status != api.StatusNeedsDecision {
		t.Errorf("waited for %+v, %v", got, err)
	}
	// As of one that has ended in needs_decision: there is nothing left to cancel.
	if got, err := o.Cancel(t.Context(), got.ID); err != nil || got.Status != api.StatusNeedsDecision {
		t.Errorf("cancelled %+v, %v", got, err)
	}
	for _, id := range []string{"01JZZZZZZZZZZZZZZZZZZZFREE", "01JZZZZZZZZZZZZZZZZZZZNONE"} {
		if _, err := o.Get(t.Context(), id); api.CodeOf(err) != "not-found" {
			t.Errorf("get %s: %v", id, err)
		}
	}
	// Decided here where it is held here, at its source where it is not.
	if _, err := o.Resolve(t.Context(), got.ID, api.ResolveRequest{Keep: api.SideSource}); api.CodeOf(err) != "conflict" {
		t.Errorf("resolve: %v", err)
	}
	if _, err := o.Resolve(t.Context(), "01JZZZZZZZZZZZZZZZZZZZNONE", api.ResolveRequest{Keep: api.SideSource}); api.CodeOf(err) != "not-found" {
		t.Errorf("resolve: %v", err)
	}
}
