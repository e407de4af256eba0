package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TemplateState is what the agent knows of the templates of its host.
type TemplateState struct {
	Copies []TemplateCopy
	// Apparent and Allocated are the bytes of all files of copies, as long as
	// they are, and as they lie on disk. A file that serves two templates
	// counts once.
	Apparent, Allocated int64
	Unowned             int // files that look like ours and belong to no copy
	Disagreements       int // refs of which only the store knows, or only a chain
	Unread              int // what of the instances' chains could not be read
}

// TemplateCopy is a template on one pool. Removed: of one that is only kept
// for those who stand on it.
type TemplateCopy struct {
	Template, Pool, State string
	Removed               bool
	Refs                  int
	FailedSince           time.Time // zero while it does not fail
}

func templateDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_template_"+name, help, labels, nil)
}

var (
	templateCopies = templateDesc("copies", "Copies of templates on this host, by state.", "state")
	templateState  = templateDesc("copy_state", "State of a template copy: the series of its present state is 1, others do not exist.", "template", "pool", "state")
	templateRefs   = templateDesc("refs", "Volumes that stand on a template copy.", "template", "pool")
	templateFailed = templateDesc("copy_failed_since_seconds", "When a template copy began to fail, in Unix time; absent for one that does not.", "template", "pool")
	templateBytes  = templateDesc("bytes", "Bytes of template copies: apparent as long as the files are, allocated as they lie on disk.", "kind")
	templateOrphan = templateDesc("unowned_files", "Files in the pools that look like ours and belong to no template.")
	templateDiffer = templateDesc("ref_disagreements", "Template refs of which only the store knows, or only the real chain of a disk.")
	templateUnread = templateDesc("chains_unread", "Disks and instances whose chain could not be read; nothing is collected while there is any.")
)

// templates shows what a function knows of the templates.
type templates struct{ read func() TemplateState }

// Describe implements prometheus.Collector.
func (t templates) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{templateCopies, templateState, templateRefs, templateFailed, templateBytes,
		templateOrphan, templateDiffer, templateUnread} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (t templates) Collect(out chan<- prometheus.Metric) {
	e, s := emitter{out: out}, t.read()
	states := map[string]int{}
	seen := map[[2]string]bool{}
	for _, c := range s.Copies {
		at := [2]string{c.Template, c.Pool}
		if seen[at] {
			continue
		}
		seen[at] = true
		if !c.Removed {
			states[c.State]++
		}
		e.gauge(templateState, 1, c.Template, c.Pool, c.State)
		e.gauge(templateRefs, float64(c.Refs), c.Template, c.Pool)
		if !c.FailedSince.IsZero() {
			e.gauge(templateFailed, float64(c.FailedSince.Unix()), c.Template, c.Pool)
		}
	}
	for state, n := range states {
		e.gauge(templateCopies, float64(n), state)
	}
	e.gauge(templateBytes, float64(s.Apparent), "apparent")
	e.gauge(templateBytes, float64(s.Allocated), "allocated")
	e.gauge(templateOrphan, float64(s.Unowned))
	e.gauge(templateDiffer, float64(s.Disagreements))
	e.gauge(templateUnread, float64(s.Unread))
}

// Templates registers what the agent knows of its templates. It is called at
// every scrape, so it must answer from memory. Call it once.
func (m *Metrics) Templates(read func() TemplateState) {
	m.registry.MustRegister(templates{read})
}

// templateCounters count what happened to templates.
type templateCounters struct {
	attempts  *prometheus.CounterVec
	failures  *prometheus.CounterVec
	downloads prometheus.Counter
	sync      *prometheus.CounterVec
	collected *prometheus.CounterVec
	checks    *prometheus.CounterVec
}

func (m *Metrics) declareTemplates() {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "template_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	m.templates = templateCounters{
		attempts:  counter("attempts_total", "Attempts to bring a template copy that have ended, by origin and result.", "origin", "result"),
		failures:  counter("failures_total", "Attempts to bring a template copy that failed, by code and class.", "code", "class"),
		sync:      counter("sync_bytes_total", "Bytes of templates that this host has received from peers or sent to them.", "direction"),
		collected: counter("collected_total", "Template copies that were deleted, by reason.", "reason"),
		checks:    counter("checks_total", "Looks at whether a template copy is still what it was, by result.", "result"),
		downloads: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "template_download_bytes_total",
			Help: "Bytes of templates that this host has downloaded."}),
	}
	m.registry.MustRegister(m.templates.downloads)
	// A series that appears with its first event has no increase to alert on.
	for _, origin := range []string{"url", "peer"} {
		for _, result := range []string{"ready", "failed"} {
			m.templates.attempts.WithLabelValues(origin, result)
		}
	}
	for _, direction := range []string{"received", "sent"} {
		m.templates.sync.WithLabelValues(direction)
	}
	for _, reason := range []string{"removed", "age", "space"} {
		m.templates.collected.WithLabelValues(reason)
	}
	for _, result := range []string{"unchanged", "verified", "changed", "missing", "unread"} {
		m.templates.checks.WithLabelValues(result)
	}
}

// DownloadBytes counts bytes of templates as they arrive from a URL.
func (m *Metrics) DownloadBytes(n int64) { m.templates.downloads.Add(float64(max(0, n))) }

// SyncReceived counts bytes of templates as they arrive from a peer.
func (m *Metrics) SyncReceived(n int64) {
	m.templates.sync.WithLabelValues("received").Add(float64(max(0, n)))
}

// SyncSent counts bytes of templates as they go to a peer.
func (m *Metrics) SyncSent(n int64) {
	m.templates.sync.WithLabelValues("sent").Add(float64(max(0, n)))
}

// TemplateAttempt counts an attempt to bring a copy that has ended: origin is
// "url" or "peer", result "ready" or "failed".
func (m *Metrics) TemplateAttempt(origin, result string) {
	m.templates.attempts.WithLabelValues(origin, result).Inc()
}

// TemplateFailure counts the fault of an attempt.
func (m *Metrics) TemplateFailure(code, class string) {
	m.templates.failures.WithLabelValues(code, class).Inc()
}

// TemplateCollected counts a copy that was deleted: "removed", "age", "space".
func (m *Metrics) TemplateCollected(reason string) {
	m.templates.collected.WithLabelValues(reason).Inc()
}

// TemplateCheck counts a look at a copy: "unchanged" by its stamp, "verified"
// by reading it, "changed", "missing", or "unread" where neither could be told.
func (m *Metrics) TemplateCheck(result string) { m.templates.checks.WithLabelValues(result).Inc() }
