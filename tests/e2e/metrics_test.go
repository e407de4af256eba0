//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// A Prometheus on host a scrapes both agents while an instance crosses, and
// knows afterwards what the migration cost and where the instance is.
func TestMetricsOfAMigrationReachPrometheus(t *testing.T) {
	w := begin(t)
	p := w.prometheus(w.a)
	name := w.unique("vm")
	tpl := w.template(w.a, w.unique("tpl"), w.picture("metrics", w.Name()), true)
	w.create(w.a, name, tpl.ID, "linked")
	uuid := w.exec(w.a, "virsh", "domuuid", name)

	p.wants("instance", `up{job="wherry"}`, map[string]float64{"wherry-a:9470": 1, "wherry-b:9470": 1})
	p.wants("instance", `wherry_libvirt_up`, map[string]float64{"wherry-a:9470": 1, "wherry-b:9470": 1})
	on := func(metric, labels string) string {
		return fmt.Sprintf(`%s{instance="wherry-a:9470",%s}`, metric, labels)
	}
	succeeded := on("wherry_migrations_total", `mode="full",result="succeeded"`)
	phase := on("wherry_migration_phase_seconds_count", `phase="perform"`)
	downtimes, downtime := on("wherry_migration_downtime_seconds_count", ""), on("wherry_migration_downtime_seconds_sum", "")
	disk, memory := on("wherry_migration_bytes_total", `kind="disk"`), on("wherry_migration_bytes_total", `kind="memory"`)
	before := map[string]float64{}
	for _, expr := range []string{succeeded, phase, downtimes, downtime, disk, memory} {
		before[expr] = p.value(expr)
	}
	for _, d := range []string{"block_write_bytes_total", "cpu_seconds_total"} {
		p.counts(uuid, "wherry-a:9470", d)
	}

	result := w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
	for expr, more := range map[string]float64{succeeded: 1, phase: 1, downtimes: 1, downtime: result.Downtime.Std().Seconds(),
		disk: float64(result.Bytes.Disk), memory: float64(result.Bytes.Memory)} {
		if more <= 0 {
			t.Errorf("the migration's result %+v adds nothing to %s", result, expr)
		}
		// To a part in a thousand: sums of seconds are no whole numbers.
		p.wants("", fmt.Sprintf("round((sum(%s) - %g) / %g, 0.001)", expr, before[expr], more), map[string]float64{"": 1})
	}
	for _, d := range []string{"block_write_bytes_total", "cpu_seconds_total"} {
		p.counts(uuid, "wherry-b:9470", d)
	}
	p.wants("instance", fmt.Sprintf(`wherry_instance_info{uuid=%q}`, uuid), map[string]float64{"wherry-b:9470": 1})
	p.wants("instance", `min_over_time(up{job="wherry"}[1h])`, map[string]float64{"wherry-a:9470": 1, "wherry-b:9470": 1})
	// Templates whose files earlier tests took away are pending by right.
	p.wants("", `count(ALERTS{alertstate="firing"}) or vector(0)`, map[string]float64{"": 0})

	// All that an agent with a history says, judged by Prometheus' own tool.
	for _, s := range w.sides() {
		text, err := s.api.Metrics(w.ctx)
		w.must(err)
		w.promtool(text, "check", "metrics")
	}
	w.promtool(nil, "check", "rules", "../../configs/prometheus-rules.yaml")
	w.promtool(nil, "test", "rules", "testdata/prometheus-rules-test.yaml")
}

// counts waits until a counter of an instance is there and grows.
func (p *prometheus) counts(uuid, from, metric string) {
	p.Helper()
	p.wants("instance", fmt.Sprintf(`wherry_instance_%s{uuid=%q,instance=%q} > bool 0`, metric, uuid, from), map[string]float64{from: 1})
}

// While an instance arrives, at a crawl, the host that it comes to answers
// scrapes and reads its counters anew: asking QEMU for those of the one that is
// arriving would hang for half a minute.
func TestMetricsWhileAnInstanceArrives(t *testing.T) {
	w := begin(t)
	name, neighbour := w.unique("vm"), w.unique("neighbour")
	w.heavy(w.b, neighbour, 8*mib)
	w.heavy(w.a, name, 8*mib)
	uuid := w.exec(w.a, "virsh", "domuuid", name)
	w.rate(w.a, "4mbit")
	id := w.begun(w.a, name, api.MigrateRequest{})
	w.copying(w.a, id)
	arriving := fmt.Sprintf(`wherry_instance_state{state="paused",uuid=%q}`, uuid)
	errorsBefore := w.scraped(w.b)["wherry_instance_stats_errors_total"]

	// Gathered twice with the instance there: the second began after the first had ended.
	var last float64
	for gathered := 0; gathered < 2; {
		w.must(harness.Until(w.ctx, "a younger reading of the counters, with the arriving instance", func(context.Context) error {
			series := w.scraped(w.b)
			age, state := series["wherry_instance_stats_age_seconds"], series[arriving]
			younger := age < last
			last = age
			if !younger || state != 1 {
				return fmt.Errorf("the reading is %g s old and shows it as paused: %g", age, state)
			}
			return nil
		}))
		gathered++
	}
	series := w.scraped(w.b)
	if op := w.seenOp(w.a, id, "still performing", func(api.Operation) bool { return true }); op.Phase != "perform" || op.Ended() {
		t.Fatalf("operation %+v; want it under way, or this test shows nothing", op)
	}
	if n := series["wherry_instance_stats_errors_total"]; n != errorsBefore {
		t.Errorf("%g readings failed before, %g now", errorsBefore, n)
	}
	other := w.exec(w.b, "virsh", "domuuid", neighbour)
	if n := series[fmt.Sprintf(`wherry_instance_block_write_bytes_total{target="vda",uuid=%q}`, other)]; n <= 0 {
		t.Errorf("the neighbour has written %g bytes", n)
	}
	w.must(w.a.Rate(w.ctx, "off"))
	w.moved(name, w.a, id)
	w.alive(neighbour, w.b)
}

// libvirtd goes and comes back: the agent says so in every way, and takes up
// its work and its events by itself.
func TestMetricsAndEventsSurviveLibvirt(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	w.heavy(w.a, name, 2*mib)
	events := make(chan api.Event, 1000)
	listening, stop := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- w.a.api.Events(listening, 0, func(e api.Event) error { events <- e; return nil })
	}()
	t.Cleanup(func() { stop(); <-ended })
	up := func(want float64) {
		t.Helper()
		w.must(harness.Until(w.ctx, fmt.Sprintf("wherry_libvirt_up %g", want), func(context.Context) error {
			if got := w.scraped(w.a)["wherry_libvirt_up"]; got != want {
				return fmt.Errorf("it is %g", got)
			}
			return nil
		}))
	}
	up(1)
	// Told once, all that the agent had kept from before is read away.
	w.event(events, "the instance's start", func(e api.Event) bool { return e.Instance == name && e.Detail == "started: booted" })

	w.cleanup("starting libvirtd", func(ctx context.Context) error { return w.a.Libvirtd(ctx, "start") })
	w.must(w.a.Libvirtd(w.ctx, "stop"))
	up(0)
	_, listErr := w.a.api.Instances(w.ctx, "")
	_, planErr := w.a.api.Plan(w.ctx, ref(name), api.MigrateRequest{Destination: w.b.URL()})
	_, migrateErr := w.a.api.Migrate(w.ctx, ref(name), api.MigrateRequest{Destination: w.b.URL()}, "")
	for what, err := range map[string]error{"list": listErr, "plan": planErr, "migrate": migrateErr, "readyz": w.a.api.Ready(w.ctx)} {
		var problem *api.Problem
		if !errors.As(err, &problem) || problem.Code != "libvirt-down" || problem.Status != http.StatusServiceUnavailable {
			t.Errorf("%s without libvirt: %v; want 503 libvirt-down", what, err)
		}
	}
	w.must(w.a.api.Live(w.ctx))

	w.must(w.a.Libvirtd(w.ctx, "start"))
	up(1)
	w.must(w.a.api.Ready(w.ctx))
	w.event(events, "libvirt's end", func(e api.Event) bool { return e.Kind == "host" && e.Detail == "libvirt: down" })
	w.event(events, "libvirt's return", func(e api.Event) bool { return e.Kind == "host" && e.Detail == "libvirt: up" })
	for _, c := range []struct{ command, detail string }{{"suspend", "suspended: paused"}, {"resume", "resumed: unpaused"}} {
		w.exec(w.a, "virsh", c.command, name)
		w.event(events, c.detail, func(e api.Event) bool { return e.Kind == "instance" && e.Instance == name && e.Detail == c.detail })
	}
	w.alive(name, w.a)
	w.migrate(w.a, name, api.MigrateRequest{})
	w.alive(name, w.b)
}

// event waits for an event among those that come.
func (w *world) event(events <-chan api.Event, what string, is func(api.Event) bool) {
	w.Helper()
	var seen []string
	for {
		select {
		case e := <-events:
			if is(e) {
				return
			}
			seen = append(seen, fmt.Sprintf("%s %s %s", e.Kind, e.Instance, e.Detail))
		case <-w.ctx.Done():
			w.Fatalf("%s was not told; these were: %q", what, seen)
		}
	}
}
