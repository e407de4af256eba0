package templates_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

// told is what the events and the counters of a test have heard.
type told struct{ events, counts []string }

func (l *told) TemplateAttempt(origin, result string) {
	l.counts = append(l.counts, origin+" "+result)
}
func (l *told) TemplateFailure(code, class string) {
	l.counts = append(l.counts, "fault "+code+" "+class)
}

func (l *told) publish(e api.Event) {
	c := e.Template
	if e.Kind != "template" || e.Detail == "" || c == nil || c.ID != "rocky9" || c.Pool != "default" {
		panic(fmt.Sprintf("event %+v, %+v", e, c))
	}
	text := c.State
	if c.Code != "" {
		text += fmt.Sprintf(" %s %s %d", c.Code, c.Class, c.Attempts)
	}
	l.events = append(l.events, text)
}

// Each change of a copy is told once, with what a program wants to know of it,
// and each attempt that ends is counted once.
func TestEvents(t *testing.T) {
	l := &told{}
	e := &templates.Events{Publish: l.publish, Counter: l}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	say := func(c template.Copy) {
		at = at.Add(time.Second)
		c.Pool, c.UpdatedAt = "default", at
		e.Changed(template.Template{ID: "rocky9", Copies: []template.Copy{c}})
	}
	state := func(s string) { say(template.Copy{State: s}) }
	failed := func(code string, attempts int) {
		say(template.Copy{State: template.StateFailed, Code: code, Class: fault.Source, Message: "because", Attempts: attempts})
	}
	state(template.StatePending)
	state(template.StateDownloading)
	state(template.StateDownloading) // its progress
	failed("truncated", 1)
	failed("truncated", 1) // told twice by the registry
	state(template.StateDownloading)
	failed("truncated", 2)
	say(template.Copy{State: template.StatePending, Attempts: 3})
	failed("scheme", 3) // without a byte asked for
	state(template.StateSyncing)
	state(template.StateVerifying)
	state(template.StateReady)
	state(template.StateMissing)
	state(template.StateReady) // it was there all the time
	failed("changed", 0)
	state(template.StateDownloading)
	failed("interrupted", 1) // called off
	state(template.StateDownloading)
	state(template.StateReady)
	state(template.StateVerifying) // it was written to
	failed("changed", 0)
	// An older change that comes late.
	e.Changed(template.Template{ID: "rocky9", Copies: []template.Copy{{Pool: "default", State: template.StateSyncing, UpdatedAt: at.Add(-time.Minute)}}})
	e.Changed(template.Template{ID: "rocky9"})
	e.Changed(template.Template{ID: "rocky9"})
	want := []string{"pending", "downloading", "failed truncated source 1", "downloading", "failed truncated source 2",
		"pending", "failed scheme source 3", "syncing", "verifying", "ready", "missing", "ready", "failed changed source 0",
		"downloading", "failed interrupted source 1", "downloading", "ready", "verifying", "failed changed source 0", ""}
	if d := cmp.Diff(want, l.events); d != "" {
		t.Errorf("events (-want +got): %s", d)
	}
	want = []string{"url failed", "fault truncated source", "url failed", "fault truncated source", "url failed", "fault scheme source", "peer ready", "url ready"}
	if d := cmp.Diff(want, l.counts); d != "" {
		t.Errorf("counts (-want +got): %s", d)
	}
}

// What was so before the agent started is no event.
func TestEventsAtTheStart(t *testing.T) {
	l := &told{}
	e := &templates.Events{Publish: l.publish, Counter: l}
	old := template.Template{ID: "rocky9", Copies: []template.Copy{{Pool: "default", State: template.StateFailed, Code: "size", Attempts: 2}}}
	e.Known([]template.Template{old})
	e.Changed(old)
	if len(l.events)+len(l.counts) != 0 {
		t.Errorf("told %q, counted %q", l.events, l.counts)
	}
}
