package http_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestIdempotencyTellsRequestsApart(t *testing.T) {
	a := newAgent(t)
	var got api.Idempotency
	a.actions.StopFn = func(_ context.Context, _ api.Ref, _ api.StopRequest, k api.Idempotency) (api.Operation, error) {
		got = k
		return anOp, nil
	}
	a.actions.StartFn = func(_ context.Context, _ api.Ref, k api.Idempotency) (api.Operation, error) {
		got = k
		return anOp, nil
	}
	a.serve(t, wherry.Listeners{})
	fingerprint := func(path, body string) string {
		t.Helper()
		got = api.Idempotency{}
		if resp := a.raw(t, "POST", path, body, "Idempotency-Key", "k"); resp.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %s", resp.Status, resp.body)
		}
		if got.Key != "k" || len(got.Fingerprint) != 64 {
			t.Fatalf("got %+v", got)
		}
		return got.Fingerprint
	}
	first := fingerprint("/v1/instances/vm1/stop", `{"timeout":"90s","force":true}`)
	for _, same := range [][2]string{
		{"/v1/instances/vm1/stop", `{"timeout":"90s","force":true}`},
		{"/v1/instances/vm1/stop", ` { "force" : true, "timeout" : "1m30s" } `},
		{"/v1/instances/vm1/stop?project=default", `{"timeout":"90s","force":true}`},
	} {
		if fingerprint(same[0], same[1]) != first {
			t.Errorf("%q is taken for another request", same)
		}
	}
	for _, other := range [][2]string{
		{"/v1/instances/vm1/stop", `{"timeout":"90s"}`},
		{"/v1/instances/vm2/stop", `{"timeout":"90s","force":true}`},
		{"/v1/instances/vm1/stop?project=blue", `{"timeout":"90s","force":true}`},
		{"/v1/instances/vm1/start", ``},
	} {
		if fingerprint(other[0], other[1]) == first {
			t.Errorf("%q is taken for the same request", other)
		}
	}
}

func TestIdempotencyKeys(t *testing.T) {
	a := newAgent(t)
	var got api.Idempotency
	a.actions.StartFn = func(_ context.Context, _ api.Ref, k api.Idempotency) (api.Operation, error) {
		got = k
		return anOp, nil
	}
	a.serve(t, wherry.Listeners{})
	for _, row := range []struct {
		key string
		ok  bool
	}{{"", true}, {strings.Repeat("k", 255), true}, {strings.Repeat("k", 256), false}, {"a b~", true}, {"ü", false}, {"a\tb", false}} {
		got = api.Idempotency{}
		resp := a.raw(t, "POST", "/v1/instances/vm1/start", "", "Idempotency-Key", row.key)
		if (resp.StatusCode == http.StatusAccepted) != row.ok {
			t.Errorf("key %q: %s", row.key, resp.Status)
		}
		if row.key == "" && got != (api.Idempotency{}) {
			t.Errorf("no key became %+v", got)
		}
	}
}
