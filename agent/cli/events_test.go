package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
)

// An operation on a template is told by it.
func TestOperationEvents(t *testing.T) {
	for want, op := range map[string]api.Operation{
		"rocky9  template running, download": {Kind: templateKind, Template: "rocky9", Status: api.StatusRunning, Phase: "download"},
		"-  cleanup succeeded":               {Kind: "cleanup", Status: api.StatusSucceeded},
	} {
		var out bytes.Buffer
		a := newApp(strings.NewReader(""), &out, &out)
		a.global.output = outputTable
		if err := a.printEvent(api.Event{ID: 4, Kind: "operation", At: created, Operation: &op}); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != "4  2026-11-21T10:00:00Z  operation  "+want+"\n" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTemplateEvents(t *testing.T) {
	for want, e := range map[string]api.TemplateEvent{
		"gone  failed in default (unresolvable): no such host, again at 2026-11-21T10:01:00Z": {
			ID: "gone", Pool: "default", State: api.CopyFailed, Code: "unresolvable", Class: "source", Message: "no such host", Attempts: 1, RetryAt: &retryAt,
		},
		"rocky9  gone in default: it was ready, and was deleted": {ID: "rocky9", Pool: "default", Message: "it was ready, and was deleted"},
		"rocky9  ready in default":                               {ID: "rocky9", Pool: "default", State: api.CopyReady},
		"rocky9  /images/vm1.qcow2: found":                       {ID: "rocky9", Pool: "default", State: api.RefFound, Volume: "/images/vm1.qcow2"},
		"rocky9  /images/vm1.qcow2: stands on it no more":        {ID: "rocky9", Pool: "default", Volume: "/images/vm1.qcow2"},
	} {
		var out bytes.Buffer
		a := newApp(strings.NewReader(""), &out, &out)
		a.global.output = outputTable
		if err := a.printEvent(api.Event{ID: 4, Kind: "template", At: created, Template: &e}); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != "4  2026-11-21T10:00:00Z  template  "+want+"\n" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
