package instance_test

import (
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// A stop policy is kept in the record, shown, and taken back by an empty one.
func TestPolicy(t *testing.T) {
	w := newWorld(t)
	w.have(hypervisor.Running, true)
	want := api.StopPolicy{Priority: -3, Timeout: api.Duration(90 * time.Second), Action: api.StopAsk}
	if got, err := w.Policy(t.Context(), ref, want); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	rec, _ := w.record()
	if rec.Stop == nil || *rec.Stop != want || rec.PowerState != "running" {
		t.Errorf("record %+v", rec)
	}
	list, err := w.List(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].Stop == nil || *list[0].Stop != want {
		t.Errorf("listed %+v, %v", list, err)
	}
	if _, err := w.Policy(t.Context(), ref, api.StopPolicy{}); err != nil {
		t.Error(err)
	}
	if rec, _ := w.record(); rec.Stop != nil {
		t.Errorf("record %+v; want no policy", rec.Stop)
	}
	if l := w.Operations.LockOf(ref); l != nil {
		t.Errorf("held still: %+v", l)
	}
}

func TestPolicyIsRefused(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Policy(t.Context(), ref, api.StopPolicy{}); api.CodeOf(err) != "not-found" {
		t.Errorf("of none: %v", err)
	}
	w.have(hypervisor.Running, false)
	if _, err := w.Policy(t.Context(), ref, api.StopPolicy{Priority: 1}); api.CodeOf(err) != "precondition" {
		t.Errorf("without a record: %v", err)
	}
}
