package http_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestProblemDocuments(t *testing.T) {
	gives := func(err error) func(*agent) {
		return func(a *agent) {
			a.instances.GetFn = func(context.Context, api.Ref) (api.Instance, error) { return api.Instance{}, err }
		}
	}
	const vm1 = "/v1/instances/vm1"
	for _, row := range []struct {
		golden             string
		method, path, body string
		setup              func(*agent)
	}{
		{"malformed", "POST", vm1 + "/migrate", `{"destination":"https://b","mode":"x","disks":[{"target":"vda"},{"target":"vda"}]}`, nil},
		{"unknown-field", "POST", vm1 + "/migrate", `{"destination":"https://b","disks":[{"target":"vda","pol":"x"}]}`, nil},
		{"no-route", "POST", vm1 + "/clone", ``, nil},
		{"wrong-method", "PUT", vm1, ``, nil},
		{"busy", "GET", vm1, ``, gives(api.NewProblem("busy", "%q is held by a migration", "vm1").WithOperation("01JD7ZK3M8"))},
		{"refused", "GET", vm1, ``, gives(api.NewProblem("refused", "2 reasons").WithHint("remove the snapshots").WithReasons([]api.Reason{
			{Code: "snapshots-present", Detail: "2 snapshots"},
			{Code: "backing-format-unknown", Disk: "vdb", Detail: `layer "/images/base" records no format`},
		}))},
		{"failed", "GET", vm1, ``, gives(fmt.Errorf("migrate: %w", api.NewProblem("migration-failed",
			"internal error: unable to execute QEMU command 'blockdev-add': No such file or directory").WithPhase("perform").WithDisk("vda")))},
		{"plain-error", "GET", vm1, ``, gives(errors.New("read journal: input/output error"))},
		{"out-of-time", "GET", vm1, ``, gives(fmt.Errorf("ask libvirt: %w", context.DeadlineExceeded))},
		{"panic", "GET", vm1, ``, func(a *agent) {
			a.instances.GetFn = func(context.Context, api.Ref) (api.Instance, error) { panic("secret detail") }
		}},
	} {
		t.Run(row.golden, func(t *testing.T) {
			a := newAgent(t)
			if row.setup != nil {
				row.setup(a)
			}
			a.serve(t, wherry.Listeners{})
			got := a.raw(t, row.method, row.path, row.body)
			want, err := os.ReadFile("testdata/problem/" + row.golden + ".json")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(generic(t, want), generic(t, got.body)); d != "" {
				t.Errorf("golden (-) and answer (+): %s", d)
			}
			if p := got.problem(t); p.Status != got.StatusCode {
				t.Errorf("the document says %d, the answer %d", p.Status, got.StatusCode)
			}
			if got.Header.Get("Content-Type") != api.MediaTypeProblem {
				t.Errorf("sent as %q", got.Header.Get("Content-Type"))
			}
		})
	}
}

func generic(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return v
}

func TestAPanicIsLoggedWithItsStack(t *testing.T) {
	a := newAgent(t)
	a.instances.GetFn = func(context.Context, api.Ref) (api.Instance, error) { panic("secret detail") }
	a.serve(t, wherry.Listeners{})
	got := a.raw(t, "GET", "/v1/instances/vm1", "")
	if log := a.log.String(); !strings.Contains(log, "secret detail") || !strings.Contains(log, "problem_test.go") {
		t.Errorf("logged %s", log)
	}
	if strings.Contains(string(got.body), "secret detail") || strings.Contains(string(got.body), ".go:") {
		t.Errorf("answered %s", got.body)
	}
}

// TestEveryProblemComesBackAsItLeft sends each code through server and client.
func TestEveryProblemComesBackAsItLeft(t *testing.T) {
	a := newAgent(t)
	var sent *api.Problem
	a.instances.GetFn = func(context.Context, api.Ref) (api.Instance, error) { return api.Instance{}, sent }
	a.serve(t, wherry.Listeners{})
	c := a.client(t)
	for _, code := range api.Codes() {
		sent = api.NewProblem(code, "cause of %s", code).WithHint("do so").WithDisk("vda").WithPhase("perform").
			WithField("name", "is wrong").WithReasons([]api.Reason{{Code: "requested", Detail: "d"}}).WithOperation("op1")
		_, err := c.Instance(t.Context(), api.Ref{Name: "vm1"})
		got, ok := errors.AsType[*api.Problem](err)
		if !ok {
			t.Fatalf("%s: %v", code, err)
		}
		if d := cmp.Diff(sent, got, cmpopts.IgnoreUnexported(api.Problem{})); d != "" {
			t.Errorf("%s: sent (-) and got (+): %s", code, d)
		}
	}
}

func TestMethodNotAllowedSaysWhichAre(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	allow := a.raw(t, "PUT", "/v1/instances/vm1", "").Header.Get("Allow")
	if !strings.Contains(allow, "GET") || !strings.Contains(allow, "DELETE") || strings.Contains(allow, "POST") {
		t.Errorf("Allow: %q", allow)
	}
}

func TestRequestsAreLoggedAndObserved(t *testing.T) {
	a := newAgent(t)
	a.actions.StartFn = func(context.Context, api.Ref, api.Idempotency) (api.Operation, error) { return anOp, nil }
	type observation struct {
		route, method string
		status        int
	}
	var mu sync.Mutex
	var seen []observation
	a.options.Observe = func(route, method string, status int, d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if d < 0 {
			t.Errorf("%s took %s", route, d)
		}
		seen = append(seen, observation{route, method, status})
	}
	a.serve(t, wherry.Listeners{})
	a.raw(t, "POST", "/v1/instances/vm1/start", "")
	a.raw(t, "GET", "/no/such/path", "")
	a.raw(t, "GET", "/livez", "")
	a.stop(t) // all are recorded when the server has ended
	want := []observation{
		{"/v1/instances/:name/start", "POST", http.StatusAccepted}, {"other", "GET", http.StatusNotFound}, {"/livez", "GET", http.StatusOK},
	}
	if d := cmp.Diff(want, seen, cmp.AllowUnexported(observation{})); d != "" {
		t.Errorf("observed (+): %s", d)
	}
	for line := range strings.Lines(a.log.String()) {
		if !strings.Contains(line, "/start") {
			continue
		}
		for _, part := range []string{"operation=01JD7ZK3M8", "status=202", "role=management", "method=POST"} {
			if !strings.Contains(line, part) {
				t.Errorf("logged %s without %s", line, part)
			}
		}
	}
	if !strings.Contains(a.log.String(), "operation=01JD7ZK3M8") {
		t.Error("the operation is not in the log")
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	a := newAgent(t)
	a.targets.ModifyFn = func(context.Context, api.TargetsRequest) (api.TargetsResponse, error) {
		return api.TargetsResponse{}, api.NewProblem("target-failed", "target 0: login refused")
	}
	a.serve(t, wherry.Listeners{})
	a.raw(t, "POST", "/v1/targets", `{"add":true,"targets":[{"type":"iscsi","portal":"h","iqn":"iqn.2026-01.org.example:s","chap":{"user":"u","secret":"hunter2"}}]}`)
	if strings.Contains(a.log.String(), "hunter2") {
		t.Errorf("logged %s", a.log.String())
	}
}
