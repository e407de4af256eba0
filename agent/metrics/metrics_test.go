package metrics_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/metrics"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a libvirt whose answers the test chooses.
type source struct {
	stats func(ctx context.Context) ([]metrics.Stat, error)
	up    bool
}

func (s *source) Stats(ctx context.Context) ([]metrics.Stat, error) { return s.stats(ctx) }
func (s *source) Up() bool                                          { return s.up }
func (s *source) Handles() int64                                    { return 3 }

func instances() []metrics.Stat {
	return []metrics.Stat{
		{
			Project: "default", Name: "vm1", UUID: "11111111-1111-1111-1111-111111111111", State: "running",
			CPU: 2500 * time.Millisecond, VCPUs: 2,
			Memory: 256 << 20, MemoryMax: 512 << 20, MemoryResident: 200 << 20, MemoryUnused: 64 << 20,
			Block: []metrics.BlockStat{{Target: "vda", ReadBytes: 1, WriteBytes: 2, ReadRequests: 3, WriteRequests: 4, FlushRequests: 5,
				ReadTime: 6 * time.Second, WriteTime: 7 * time.Second, Capacity: 8, Allocation: 9, Physical: 10}},
			Net: []metrics.NetStat{{Device: "vnet0", ReceiveBytes: 11, ReceivePackets: 12, ReceiveErrors: 13, ReceiveDrops: 14,
				TransmitBytes: 15, TransmitPackets: 16, TransmitErrors: 17, TransmitDrops: 18}},
		},
		// Arriving: its name and state are known, and nothing else.
		{Project: "default", Name: "vm2", UUID: "22222222-2222-2222-2222-222222222222", State: "paused"},
	}
}

func templates() metrics.TemplateState {
	ready := metrics.TemplateCopy{Template: "rocky9", Pool: "default", State: "ready", Refs: 2}
	other := ready
	other.Pool = "second"
	return metrics.TemplateState{Apparent: 4096, Allocated: 512, Unowned: 3, Disagreements: 4, Unread: 5, Copies: []metrics.TemplateCopy{
		ready, other, ready, // one told twice
		{Template: "old", Pool: "default", State: "ready", Removed: true, Refs: 1},
		{Template: "bad\xff", Pool: "default", State: "failed", FailedSince: time.Unix(900, 0)},
	}}
}

// full is an agent that has done a little of everything.
func full(t *testing.T) *metrics.Metrics {
	m := metrics.New("v1.2.3")
	m.MigrationDone("full", "succeeded", map[string]time.Duration{"prepare": 300 * time.Millisecond, "perform": 4 * time.Second},
		180*time.Millisecond, 1<<20, 1<<10)
	m.MigrationDone("", "failed", nil, time.Hour, -1, 0)
	m.LockWait(20 * time.Millisecond)
	m.Stop("acpi", 3*time.Second)
	m.ForcedStop()
	m.DownloadBytes(4096)
	m.DownloadBytes(-1)
	m.HTTP("/v1/instances/:name", http.MethodGet, http.StatusOK, 2*time.Millisecond)
	m.InFlight(func() map[string]int { return map[string]int{"migrate": 2} })
	m.Queued(func() map[string]int { return map[string]int{"outgoing": 3, "incoming": 0} })
	m.Locks(func() []metrics.Lock {
		return []metrics.Lock{{Kind: "migrate", Since: time.Unix(900, 0), Waiters: 1}, {Kind: "stop", Since: time.Unix(990, 0)},
			{Kind: "migrate", Since: time.Unix(940, 0), Waiters: 2}}
	}, func() time.Time { return time.Unix(1000, 0) })
	m.SyncReceived(2048)
	m.SyncSent(1024)
	m.SyncSent(-1)
	m.TemplateAttempt("url", "failed")
	m.TemplateFailure("unresolvable", "source")
	m.TemplateCollected("age")
	m.TemplateCheck("verified")
	m.Templates(templates)
	now := time.Unix(1000, 0)
	c := m.Collector(&source{up: true, stats: func(context.Context) ([]metrics.Stat, error) { return instances(), nil }},
		metrics.CollectorOptions{Now: func() time.Time { now = now.Add(time.Second); return now }})
	gather(t, c)
	return m
}

// gather lets the collector gather exactly once.
func gather(t *testing.T, c *metrics.Collector) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Run(ctx)
}

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// own keeps the agent's own metrics: those of the Go runtime change.
func own(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "wherry_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestExposition(t *testing.T) {
	got := own(scrape(t, full(t)))
	// The version of Go is this machine's.
	if i := strings.Index(got, `goversion="`); i >= 0 {
		end := i + len(`goversion="`) + strings.IndexByte(got[i+len(`goversion="`):], '"')
		got = got[:i] + `goversion="go1.x` + got[end:]
	}
	golden := filepath.Join("testdata", "exposition.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("exposition (-golden +got):\n%s", diff)
	}
}

func TestPromlint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, full(t)))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// The names that the wire contract promises.
func TestContract(t *testing.T) {
	text := scrape(t, full(t))
	for _, series := range []string{
		`wherry_migrations_total{mode="full",result="succeeded"} 1`,
		`wherry_migrations_total{mode="none",result="failed"} 1`,
		`wherry_migration_phase_seconds_count{phase="perform"} 1`,
		`wherry_migration_phase_seconds_sum{phase="prepare"} 0.3`,
		`wherry_migration_downtime_seconds_count 1`, // not of the one that failed
		`wherry_migration_downtime_seconds_sum 0.18`,
		`wherry_migration_bytes_total{kind="disk"} 1.048576e+06`,
		`wherry_migration_bytes_total{kind="memory"} 1024`,
		`wherry_operations_in_flight{kind="migrate"} 2`,
		`wherry_operation_lock_wait_seconds_sum 0.02`,
		`wherry_stop_seconds_sum{rung="acpi"} 3`,
		`wherry_forced_stops_total 1`,
		`wherry_operation_lock_age_seconds{kind="migrate"} 100`,
		`wherry_operation_lock_age_seconds{kind="stop"} 10`,
		`wherry_operation_lock_waiters{kind="migrate"} 3`,
		`wherry_operation_lock_waiters{kind="stop"} 0`,
		`wherry_template_copies{state="ready"} 2`,
		`wherry_template_copies{state="failed"} 1`,
		`wherry_template_copy_state{pool="default",state="ready",template="rocky9"} 1`,
		`wherry_template_copy_state{pool="default",state="ready",template="old"} 1`,
		`wherry_template_copy_failed_since_seconds{pool="default",template="bad` + "\uFFFD" + `"} 900`,
		`wherry_template_refs{pool="second",template="rocky9"} 2`,
		`wherry_template_refs{pool="default",template="old"} 1`,
		`wherry_template_attempts_total{origin="url",result="failed"} 1`,
		`wherry_template_failures_total{class="source",code="unresolvable"} 1`,
		`wherry_template_sync_bytes_total{direction="received"} 2048`,
		`wherry_template_sync_bytes_total{direction="sent"} 1024`,
		`wherry_template_bytes{kind="apparent"} 4096`,
		`wherry_template_bytes{kind="allocated"} 512`,
		`wherry_template_unowned_files 3`,
		`wherry_template_ref_disagreements 4`,
		`wherry_template_chains_unread 5`,
		`wherry_template_collected_total{reason="age"} 1`,
		`wherry_template_checks_total{result="verified"} 1`,
		`wherry_template_download_bytes_total 4096`,
		`wherry_instance_info{name="vm1",project="default",uuid="11111111-1111-1111-1111-111111111111"} 1`,
		`wherry_instance_state{state="running",uuid="11111111-1111-1111-1111-111111111111"} 1`,
		`wherry_instance_cpu_seconds_total{uuid="11111111-1111-1111-1111-111111111111"} 2.5`,
		`wherry_libvirt_up 1`,
		`wherry_libvirt_handles 3`,
		`wherry_http_requests_total{method="GET",route="/v1/instances/:name",status="200"} 1`,
		`go_goroutines`, `process_resident_memory_bytes`,
	} {
		if !strings.Contains(text, "\n"+series) {
			t.Errorf("missing: %s", series)
		}
	}
	if !strings.Contains(text, `version="v1.2.3"`) {
		t.Error("the version is missing")
	}
}

// A failure must be an increase of a series that was there before.
func TestSeriesOfFailuresExistFromTheStart(t *testing.T) {
	text := scrape(t, metrics.New("v0"))
	for _, series := range []string{`wherry_migrations_total{mode="full",result="failed"} 0`, `wherry_template_attempts_total{origin="peer",result="failed"} 0`} {
		if !strings.Contains(text, series) {
			t.Errorf("an agent that never failed does not show %s", series)
		}
	}
}

func TestArrivingInstanceHasNoCounters(t *testing.T) {
	for line := range strings.Lines(scrape(t, full(t))) {
		if strings.Contains(line, "22222222-") && !strings.HasPrefix(line, "wherry_instance_info{") && !strings.HasPrefix(line, "wherry_instance_state{") {
			t.Errorf("unexpected: %s", line)
		}
	}
}

// When libvirt fails, the last values stay, age, and say so.
func TestLastValuesStay(t *testing.T) {
	var asked, seconds atomic.Int64
	s := &source{stats: func(context.Context) ([]metrics.Stat, error) {
		if asked.Add(1) == 1 {
			return instances(), nil
		}
		return nil, errors.New("connection reset")
	}}
	m := metrics.New("v0")
	ticks, finished := make(chan time.Time), make(chan struct{})
	c := m.Collector(s, metrics.CollectorOptions{Ticks: ticks, Now: func() time.Time { return time.Unix(seconds.Load(), 0) }})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(finished); c.Run(ctx) }()
	ticks <- time.Time{} // taken when the first gathering, the good one, is over
	ticks <- time.Time{} // and when the second is, which failed
	cancel()
	<-finished
	seconds.Store(42)

	text := scrape(t, m)
	for _, want := range []string{"wherry_libvirt_up 0", "wherry_instance_stats_age_seconds 42", `wherry_instance_info{name="vm1"`} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(text, "\nwherry_instance_stats_errors_total 0") {
		t.Error("the failure was not counted")
	}
}

// A libvirt that hangs delays no scrape, and its gathering has a deadline.
func TestScrapeDoesNotWait(t *testing.T) {
	asked := make(chan struct{}, 1)
	hanging := &source{up: true, stats: func(ctx context.Context) ([]metrics.Stat, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the gathering has no deadline")
		}
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	m := metrics.New("v0")
	c := m.Collector(hanging, metrics.CollectorOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	finished := make(chan struct{})
	go func() { defer close(finished); c.Run(ctx) }()
	<-asked
	text := scrape(t, m) // while libvirt hangs
	if !strings.Contains(text, "\nwherry_libvirt_up 1") || strings.Contains(text, "wherry_instance_info{") {
		t.Errorf("scrape while libvirt hangs:\n%s", own(text))
	}
	cancel()
	<-finished
}

// Whatever libvirt says of an instance, the others stay visible.
func TestOddInstancesSpoilNothing(t *testing.T) {
	odd := instances()
	odd = append(odd, odd[0]) // twice
	odd[0].Block = append(odd[0].Block, odd[0].Block[0])
	odd[0].Net = append(odd[0].Net, odd[0].Net[0])
	odd[1].Name = "vm\xff\n\"2"
	m := metrics.New("v0")
	gather(t, m.Collector(&source{stats: func(context.Context) ([]metrics.Stat, error) { return odd, nil }}, metrics.CollectorOptions{}))
	text := scrape(t, m)
	for _, want := range []string{`name="vm1"`, `name="vm` + "\uFFFD" + `\n\"2"`, "wherry_instance_block_read_bytes_total"} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if n := strings.Count(text, "\nwherry_instance_block_read_bytes_total{"); n != 1 {
		t.Errorf("%d series of the one disk", n)
	}
}

func TestHandlerOverHTTP(t *testing.T) {
	server := httptest.NewServer(full(t).Handler())
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") || !strings.Contains(string(body), "wherry_build_info") {
		t.Errorf("%v %s %d bytes", err, response.Header.Get("Content-Type"), len(body))
	}
}
