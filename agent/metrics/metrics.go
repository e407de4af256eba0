package metrics

import (
	"cmp"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "wherry"

// noMode is the storage mode of a migration that ended before one was chosen.
const noMode = "none"

// scrapeTimeout bounds one scrape; Prometheus itself waits 10 s by default.
const scrapeTimeout = 8 * time.Second

// Metrics counts what the agent does. Its methods are safe for concurrent use
// and never block.
type Metrics struct {
	registry *prometheus.Registry

	migrations     *prometheus.CounterVec
	phase          *prometheus.HistogramVec
	downtime       prometheus.Histogram
	migrationBytes *prometheus.CounterVec
	lockWait       prometheus.Histogram
	stops          *prometheus.HistogramVec
	forcedStops    prometheus.Counter
	startsAgain    *prometheus.CounterVec
	templates      templateCounters
	requests       *prometheus.CounterVec
	requestTime    *prometheus.HistogramVec
}

// New declares the metrics of an agent of the given version.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.declareMigrations()
	m.declareOperations()
	m.declareBoot()
	m.declareTemplates()
	m.declareHTTP()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Version of this agent; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) declareMigrations() {
	m.migrations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "migrations_total", Help: "Migrations from this host that have ended, by storage mode and result.",
	}, []string{"mode", "result"})
	m.phase = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "migration_phase_seconds", Help: "Length of each phase of the migrations from this host.",
		Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200},
	}, []string{"phase"})
	m.downtime = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: "migration_downtime_seconds", Help: "How long guests stood still while they were switched over.",
		Buckets: []float64{.01, .025, .05, .1, .2, .3, .5, 1, 2, 5, 10, 30},
	})
	m.migrationBytes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "migration_bytes_total", Help: "Bytes that migrations sent from this host, by kind: disk or memory.",
	}, []string{"kind"})
	m.registry.MustRegister(m.migrations, m.phase, m.downtime, m.migrationBytes)
	// A series that appears with its first failure has no increase to alert
	// on: the expected ones are there from the start.
	for _, result := range []string{"succeeded", "failed", "cancelled", "needs_decision"} {
		for _, mode := range []string{"full", "linked"} {
			m.migrations.WithLabelValues(mode, result)
		}
	}
	for _, result := range []string{"failed", "cancelled"} {
		m.migrations.WithLabelValues(noMode, result)
	}
	for _, kind := range []string{"disk", "memory"} {
		m.migrationBytes.WithLabelValues(kind)
	}
}

func (m *Metrics) declareOperations() {
	m.lockWait = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: "operation_lock_wait_seconds", Help: "How long operations waited for their instance to be free.",
		Buckets: []float64{.001, .01, .1, 1, 10, 60, 300},
	})
	m.stops = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "stop_seconds", Help: "How long instances took to stop, by the rung of the ladder that ended them.",
		Buckets: []float64{.5, 1, 2, 5, 10, 30, 60, 120, 300},
	}, []string{"rung"})
	m.forcedStops = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: namespace, Name: "forced_stops_total", Help: "Instances whose power was cut instead of being stopped by their guest.",
	})
	m.registry.MustRegister(m.lockWait, m.stops, m.forcedStops)
}

func (m *Metrics) declareHTTP() {
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "http_requests_total", Help: "Requests that were answered, by route, method and status.",
	}, []string{"route", "method", "status"})
	m.requestTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "http_request_duration_seconds", Help: "How long answers took, by route and method.",
		Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 30},
	}, []string{"route", "method"})
	m.registry.MustRegister(m.requests, m.requestTime)
}

// MigrationDone counts a migration that has ended. The mode is "" where it
// failed before one was chosen; the downtime counts only if it succeeded; disk
// and memory are the bytes sent, whatever the result.
func (m *Metrics) MigrationDone(mode, result string, phases map[string]time.Duration, downtime time.Duration, disk, memory int64) {
	m.migrations.WithLabelValues(cmp.Or(mode, noMode), result).Inc()
	for phase, d := range phases {
		m.phase.WithLabelValues(phase).Observe(d.Seconds())
	}
	if result == "succeeded" {
		m.downtime.Observe(downtime.Seconds())
	}
	// A counter panics on a negative value, and a wrong count is no reason to fall.
	m.migrationBytes.WithLabelValues("disk").Add(float64(max(0, disk)))
	m.migrationBytes.WithLabelValues("memory").Add(float64(max(0, memory)))
}

// LockWait takes how long an operation waited for its instance.
func (m *Metrics) LockWait(d time.Duration) { m.lockWait.Observe(d.Seconds()) }

// Stop takes how long an instance took to stop, and the rung that ended it.
func (m *Metrics) Stop(rung string, d time.Duration) {
	m.stops.WithLabelValues(rung).Observe(d.Seconds())
}

// ForcedStop counts an instance whose power was cut.
func (m *Metrics) ForcedStop() { m.forcedStops.Inc() }

// HTTP counts an answered request. The route is the template, such as
// /v1/instances/:name, never the path: paths are unbounded.
func (m *Metrics) HTTP(route, method string, status int, d time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.requestTime.WithLabelValues(route, method).Observe(d.Seconds())
}

// InFlight registers the count of running operations by kind. It is called at
// every scrape, so it must answer from memory. Call it once.
func (m *Metrics) InFlight(count func() map[string]int) {
	m.registry.MustRegister(&counts{count, prometheus.NewDesc(
		"wherry_operations_in_flight", "Operations that have not ended, by kind.", []string{"kind"}, nil)})
}

// Queued registers the count of migrations that wait for their turn, by
// direction: from this host, or for a place on it. As InFlight.
func (m *Metrics) Queued(count func() map[string]int) {
	m.registry.MustRegister(&counts{count, prometheus.NewDesc(
		"wherry_migrations_queued", "Migrations that wait for their turn, from this host (outgoing) or for a place on it (incoming).", []string{"direction"}, nil)})
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		// One bad series must not hide all others.
		ErrorHandling: promhttp.ContinueOnError,
		// Two scrapers at most; more would pile up behind a slow one.
		MaxRequestsInFlight: 4,
		Timeout:             scrapeTimeout,
	})
}
