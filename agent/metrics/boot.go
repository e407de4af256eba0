package metrics

import "github.com/prometheus/client_golang/prometheus"

// Results of starting an instance again after its host was down.
const (
	startAgainDone    = "started"
	startAgainRetried = "retried" // failed, and is tried again
	startAgainFailed  = "failed"  // given up
)

func (m *Metrics) declareBoot() {
	m.startsAgain = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "starts_again_total",
		Help: "Starts of instances that ran when the host went down, by result: started, retried (it failed and is tried again) or failed (given up).",
	}, []string{"result"})
	m.registry.MustRegister(m.startsAgain)
	for _, result := range []string{startAgainDone, startAgainRetried, startAgainFailed} {
		m.startsAgain.WithLabelValues(result)
	}
}

// StartAgain counts an attempt to start an instance again.
func (m *Metrics) StartAgain(done, last bool) {
	switch {
	case done:
		m.startsAgain.WithLabelValues(startAgainDone).Inc()
	case last:
		m.startsAgain.WithLabelValues(startAgainFailed).Inc()
	default:
		m.startsAgain.WithLabelValues(startAgainRetried).Inc()
	}
}
