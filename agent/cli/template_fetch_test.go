package cli

import (
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

func TestFaultText(t *testing.T) {
	for want, c := range map[string]api.TemplateCopy{
		"":                     {},
		"new-code":             {Code: "new-code"},
		"this host":            {Class: "local"},
		"this host (no-space)": {Code: "no-space", Class: "local"},
		"a rule of this host (address); setting: templates.allow_addresses":                  {Code: "address", Class: "policy"},
		"the place that the image comes from, or the way to it (tls); setting: templates.ca": {Code: "tls", Class: "source"},
	} {
		if got := faultText(c); got != want {
			t.Errorf("%+v reads %q, want %q", c, got, want)
		}
	}
}

// A setting that is named to a person must be one.
func TestSettingsExist(t *testing.T) {
	keys := map[string]bool{}
	for _, k := range config.Keys() {
		keys[k] = true
	}
	for code, key := range settings {
		if !keys[key] {
			t.Errorf("%s: there is no setting %q", code, key)
		}
	}
}

func TestRetryText(t *testing.T) {
	at := func(d time.Duration) *time.Time { when := created.Add(d); return &when }
	for name, row := range map[string]struct {
		copy api.TemplateCopy
		want string
	}{
		"ready":             {api.TemplateCopy{State: api.CopyReady}, ""},
		"on its way":        {api.TemplateCopy{State: api.CopyDownloading, Attempts: 2}, ""},
		"permanent":         {api.TemplateCopy{State: api.CopyFailed, Attempts: 1}, "on request"},
		"later":             {api.TemplateCopy{State: api.CopyFailed, Attempts: 1, RetryAt: at(59900 * time.Millisecond)}, "in 1m0s (try 2)"},
		"now":               {api.TemplateCopy{State: api.CopyFailed, Attempts: 3, RetryAt: at(0)}, "now (try 4)"},
		"late":              {api.TemplateCopy{State: api.CopyMissing, RetryAt: at(-time.Hour)}, "now (try 1)"},
		"ready, stale time": {api.TemplateCopy{State: api.CopyReady, RetryAt: at(time.Minute)}, ""},
	} {
		if got := retryText(row.copy, created); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
