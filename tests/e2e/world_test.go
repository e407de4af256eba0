//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// testTime bounds one test. A guest boots in about three seconds on a machine that
// has nothing else to do.
const testTime = 3 * time.Minute

// world is the lab as one test sees it. Names that a test uses are its own, so
// that what it leaves behind cannot be another's.
type world struct {
	testing.TB
	ctx  context.Context
	lab  *harness.Lab
	a, b *side
}

// side is one host with its agent.
type side struct {
	*harness.Host
	api    *client.Client
	logged int // length of the agent's log when the test began
}

// begin gives a test both hosts, emptied of templates, instances and volumes.
func begin(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	w := &world{TB: t, ctx: ctx, lab: harness.Open(t)}
	w.a, w.b = w.side(w.lab.A), w.side(w.lab.B)
	emptied := make(chan error)
	for _, s := range w.sides() {
		go func() { emptied <- s.empty(ctx) }()
	}
	w.must(errors.Join(<-emptied, <-emptied))
	w.doubtless()
	t.Cleanup(func() {
		if t.Failed() {
			w.logs()
		}
	})
	return w
}

// empty takes every template, instance, volume and record from a host.
func (s *side) empty(ctx context.Context) error {
	if err := errors.Join(s.forget(ctx, false), s.Reset(ctx), s.forget(ctx, true)); err != nil {
		return err
	}
	_, err := s.Exec(ctx, "sh", "-c", "mkdir -p /var/lib/wherry/records && rm -rf /var/lib/wherry/records/*")
	return err
}

func (w *world) sides() []*side { return []*side{w.a, w.b} }

func (w *world) side(h *harness.Host) *side {
	w.Helper()
	c, err := client.New("unix:"+h.Socket(), client.TLS{})
	w.must(err)
	w.Cleanup(c.Close)
	log, err := h.AgentLog(w.ctx)
	w.must(err)
	return &side{Host: h, api: c, logged: len(log)}
}

// other gives the opposite host.
func (w *world) other(s *side) *side {
	if s == w.a {
		return w.b
	}
	return w.a
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// logLines bounds what a failed test shows of an agent's log.
const logLines = 100

// logs shows what both hosts hold, and what their agents have logged since the
// test began, for one that failed.
func (w *world) logs() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, s := range w.sides() {
		out, err := s.Exec(ctx, "sh", "-c", "virsh -q list --all; find /var/lib/libvirt/images /srv/second -type f")
		w.Logf("host %s: %s %v", s.Name, out, err)
		log, err := s.AgentLog(ctx)
		lines := strings.Split(strings.TrimSpace(log[min(s.logged, len(log)):]), "\n")
		w.Logf("the agent of host %s, at last (%v):\n%s", s.Name, err, strings.Join(lines[max(0, len(lines)-logLines):], "\n"))
	}
}

// unique makes a name for this test.
func (w *world) unique(name string) string {
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(w.Name()))
	if len(id) > 40 {
		id = id[len(id)-40:]
	}
	return strings.Trim(id, "-") + "-" + name
}

// run waits for an operation that a call has started, and wants it to succeed.
func (w *world) run(s *side, op api.Operation, err error) api.Operation {
	w.Helper()
	w.must(err)
	op = w.wait(s, op.ID)
	if op.Status != api.StatusSucceeded {
		w.Fatalf("operation %s %s ended as %s: %s", op.Kind, op.ID, op.Status, describe(op.Error))
	}
	return op
}

// wait waits for the end of an operation, however it ends.
func (w *world) wait(s *side, id string) api.Operation {
	w.Helper()
	op, err := s.api.WaitOperation(w.ctx, id, func(api.Operation) {})
	w.must(err)
	return op
}

func describe(p *api.Problem) string {
	b, err := json.Marshal(p)
	return fmt.Sprintf("%s %v", b, err)
}

// problem wants an error of that code.
func (w *world) problem(err error, code string) *api.Problem {
	w.Helper()
	var p *api.Problem
	if !errors.As(err, &p) {
		w.Fatalf("error %v; want a problem %q", err, code)
	}
	if p.Code != code {
		w.Fatalf("problem %s; want code %q", describe(p), code)
	}
	return p
}

// migrate moves an instance and wants success.
func (w *world) migrate(from *side, name string, r api.MigrateRequest) api.MigrateResult {
	w.Helper()
	if r.Destination == "" {
		r.Destination = w.other(from).URL()
	}
	op, err := from.api.Migrate(w.ctx, api.Ref{Project: api.DefaultProject, Name: name}, r, "")
	op = w.run(from, op, err)
	var result api.MigrateResult
	w.must(json.Unmarshal(op.Result, &result))
	return result
}

// plan asks for a plan and wants one.
func (w *world) plan(from *side, name string, r api.MigrateRequest) api.Plan {
	w.Helper()
	if r.Destination == "" {
		r.Destination = w.other(from).URL()
	}
	p, err := from.api.Plan(w.ctx, api.Ref{Project: api.DefaultProject, Name: name}, r)
	w.must(err)
	return p
}

// refused asks for a plan and a migration, and wants both refused for exactly
// these reasons ("code" or "code:disk"), with nothing begun.
func (w *world) refused(from *side, name string, r api.MigrateRequest, want ...string) *api.Problem {
	w.Helper()
	if r.Destination == "" {
		r.Destination = w.other(from).URL()
	}
	ref := api.Ref{Project: api.DefaultProject, Name: name}
	_, err := from.api.Plan(w.ctx, ref, r)
	p := w.problem(err, "refused")
	got := map[string]bool{}
	for _, reason := range p.Reasons {
		got[reason.Code] = true
		got[reason.Code+":"+reason.Disk] = true
		if reason.Detail == "" {
			w.Errorf("reason %q has no detail", reason.Code)
		}
	}
	for _, code := range want {
		if !got[code] {
			w.Errorf("reasons %+v lack %q", p.Reasons, code)
		}
	}
	if len(p.Reasons) != len(want) {
		w.Errorf("%d reasons %+v; want %q", len(p.Reasons), p.Reasons, want)
	}
	_, err = from.api.Migrate(w.ctx, ref, r, "")
	w.problem(err, "refused")
	return p
}

// planned finds a disk in a plan.
func (w *world) planned(p api.Plan, target string) api.PlanDisk {
	w.Helper()
	for _, d := range p.Disks {
		if d.Target == target {
			return d
		}
	}
	w.Fatalf("the plan %+v has no disk %q", p, target)
	return api.PlanDisk{}
}

// alive wants the guest running on that host and nowhere else, never
// restarted, still writing, and every byte in its place.
func (w *world) alive(name string, on *side) []harness.DiskReport {
	w.Helper()
	off := w.other(on)
	state, err := on.State(w.ctx, name)
	if err != nil || state != "running" {
		w.Fatalf("%q is %q on host %s (%v); want running", name, state, on.Name, err)
	}
	if state, err := off.State(w.ctx, name); err != nil || state != "" {
		w.Fatalf("%q is %q on host %s too (%v)", name, state, off.Name, err)
	}
	guest := w.lab.Guest(name)
	w.must(guest.WaitMore(w.ctx, on.Host, "vda", 3))
	reports, err := guest.Verify(w.ctx, on.Host)
	w.must(err)
	boots, err := guest.Boots(w.ctx)
	if err != nil || len(boots) != 1 {
		w.Fatalf("boots %q, %v; want one", boots, err)
	}
	return reports
}

// clean wants no trace of the instance on that host: no domain, volume, record
// or reservation.
func (w *world) clean(name string, on *side) {
	w.Helper()
	if state, err := on.State(w.ctx, name); err != nil || state != "" {
		w.Errorf("%q is %q on host %s (%v); want it absent", name, state, on.Name, err)
	}
	out, err := on.Exec(w.ctx, "sh", "-c", `find "$0" "$1" /var/lib/wherry/records \( -name "*$2*" -o -name ".wherry-*" \) ! -name ".wherry-lock"`,
		harness.ImagesPath, harness.SecondPath, name)
	if err != nil || strings.TrimSpace(out) != "" {
		w.Errorf("left on host %s: %q (%v)", on.Name, out, err)
	}
}

// files lists the files of the host's default pool.
func (w *world) files(on *side) []string {
	w.Helper()
	out, err := on.Exec(w.ctx, "find", harness.ImagesPath, "-type", "f", "-printf", "%P\n")
	w.must(err)
	return strings.Fields(out)
}

// exists wants a file of the host's default pool to be there, or not.
func (w *world) exists(on *side, file string, want bool) {
	w.Helper()
	path := file
	if !filepath.IsAbs(path) {
		path = filepath.Join(harness.ImagesPath, file)
	}
	_, err := on.Exec(w.ctx, "test", "-e", path)
	if (err == nil) != want {
		w.Errorf("file %s on host %s: exists is %v; want %v", path, on.Name, err == nil, want)
	}
}
