package templates

import (
	"fmt"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

// Counter hears what became of attempts to bring a copy, for metrics.
type Counter interface {
	// TemplateAttempt takes where from, "url" or "peer", and the result,
	// "ready" or "failed".
	TemplateAttempt(origin, result string)
	TemplateFailure(code, class string)
}

// Events tells what becomes of template copies, from what the registry says of
// each change: as events, for those who watch, and as counts.
type Events struct {
	Publish func(api.Event)
	Counter Counter

	mu   sync.Mutex
	last map[[2]string]seen // by template and pool
}

// seen is what was last told of a copy.
type seen struct {
	state, code, message string
	attempts             int
	retryAt              time.Time
	at                   time.Time
	origin               string // of the attempt under way
}

// Known takes the templates as they are at the start, of which nothing is told.
func (e *Events) Known(all []template.Template) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range all {
		for _, c := range t.Copies {
			e.note(t.ID, c)
		}
	}
}

// note remembers what is known of a copy, and gives what was. Needs mu.
func (e *Events) note(id string, c template.Copy) (was seen, known bool) {
	if e.last == nil {
		e.last = map[[2]string]seen{}
	}
	key := [2]string{id, c.Pool}
	was, known = e.last[key]
	is := seen{state: c.State, code: c.Code, message: c.Message, attempts: c.Attempts, at: c.UpdatedAt, origin: was.origin}
	if c.RetryAt != nil {
		is.retryAt = *c.RetryAt
	}
	switch c.State {
	case template.StateDownloading:
		is.origin = "url"
	case template.StateSyncing:
		is.origin = "peer"
	case template.StateVerifying:
	default:
		is.origin = ""
	}
	e.last[key] = is
	return was, known
}

// Changed takes a template after a change. It does not block.
func (e *Events) Changed(t template.Template) {
	for _, c := range t.Copies {
		e.copyChanged(t, c)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, was := range e.last {
		if key[0] != t.ID || hasCopy(t, key[1]) {
			continue
		}
		delete(e.last, key)
		e.Publish(api.Event{Kind: kind, Detail: fmt.Sprintf("template %q: the copy in pool %q is gone", t.ID, key[1]),
			Template: &api.TemplateEvent{ID: t.ID, Pool: key[1], Message: fmt.Sprintf("it was %s, and was deleted", was.state)}})
	}
}

func hasCopy(t template.Template, pool string) bool {
	for _, c := range t.Copies {
		if c.Pool == pool {
			return true
		}
	}
	return false
}

func (e *Events) copyChanged(t template.Template, c template.Copy) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// Two changes may be told in the wrong order; the younger one has been.
	if was, known := e.last[[2]string{t.ID, c.Pool}]; known && c.UpdatedAt.Before(was.at) {
		return
	}
	was, _ := e.note(t.ID, c)
	failedAgain := c.State == template.StateFailed && (was.attempts != c.Attempts || was.code != c.Code)
	if was.state == c.State && !failedAgain {
		return
	}
	e.count(was, c, failedAgain)
	e.Publish(copyEvent(t, c))
}

// count counts attempts that have ended. One that failed before it had begun
// to read, such as one of an unknown scheme, was to come from the URL. A copy
// that was ready and is lost was no attempt, nor is one that was called off a
// failed one.
func (e *Events) count(was seen, c template.Copy, failedAgain bool) {
	if e.Counter == nil {
		return
	}
	origin := was.origin
	switch {
	case c.State == template.StateReady && origin != "":
		e.Counter.TemplateAttempt(origin, "ready")
	case c.Code == fault.Interrupted:
	case c.State == template.StateFailed && (origin != "" || failedAgain && was.state != template.StateReady && was.state != template.StateVerifying):
		if origin == "" {
			origin = "url"
		}
		e.Counter.TemplateAttempt(origin, "failed")
		e.Counter.TemplateFailure(c.Code, string(c.Class))
	}
}

func copyEvent(t template.Template, c template.Copy) api.Event {
	text := fmt.Sprintf("template %q in pool %q: %s", t.ID, c.Pool, c.State)
	if c.Code != "" {
		text += " (" + c.Code + ")"
	}
	if c.Message != "" {
		text += ": " + c.Message
	}
	return api.Event{Kind: kind, Detail: text, Template: &api.TemplateEvent{ID: t.ID, Pool: c.Pool, State: c.State, Code: c.Code,
		Class: string(c.Class), Message: c.Message, Attempts: c.Attempts, RetryAt: c.RetryAt}}
}
