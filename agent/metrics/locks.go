package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Lock is the lock of an instance that is held.
type Lock struct {
	Kind    string // of the operation that holds it
	Since   time.Time
	Waiters int
}

// locks shows the locks of all instances by kind: one series for each instance
// would come and go with every operation, and tell no more that can be acted on.
type locks struct {
	held func() []Lock
	now  func() time.Time
}

var (
	lockAge = prometheus.NewDesc(namespace+"_operation_lock_age_seconds",
		"How long the instance that is held longest has been, by the kind of operation that holds it.", []string{"kind"}, nil)
	lockWaiters = prometheus.NewDesc(namespace+"_operation_lock_waiters",
		"Operations and other work that wait for an instance, by the kind of operation that holds it.", []string{"kind"}, nil)
)

// Locks registers the locks that are held. The function is called at every
// scrape, so it must answer from memory. Call it once.
func (m *Metrics) Locks(held func() []Lock, now func() time.Time) {
	m.registry.MustRegister(&locks{held, now})
}

// Describe implements prometheus.Collector.
func (l *locks) Describe(out chan<- *prometheus.Desc) {
	out <- lockAge
	out <- lockWaiters
}

// Collect implements prometheus.Collector.
func (l *locks) Collect(out chan<- prometheus.Metric) {
	age, waiters := map[string]time.Duration{}, map[string]int{}
	for _, k := range l.held() {
		age[k.Kind] = max(age[k.Kind], l.now().Sub(k.Since))
		waiters[k.Kind] += k.Waiters
	}
	e := emitter{out: out}
	for kind, d := range age {
		e.gauge(lockAge, d.Seconds(), kind)
		e.gauge(lockWaiters, float64(waiters[kind]), kind)
	}
}
