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

func TestCopyState(t *testing.T) {
	removed := api.Template{RemovedAt: &created}
	used := removed
	used.Refs = rocky9.Refs
	for want, row := range map[string]struct {
		of   api.Template
		copy api.TemplateCopy
	}{
		"-":                         {rocky9, api.TemplateCopy{}},
		"ready":                     {rocky9, api.TemplateCopy{State: api.CopyReady}},
		"syncing 42%":               {rocky9, api.TemplateCopy{State: api.CopySyncing, Progress: 42, BytesDone: 42, BytesTotal: 100}},
		"downloading 1.0 GiB":       {rocky9, api.TemplateCopy{State: api.CopyDownloading, BytesDone: 1 << 30, BytesTotal: -1}},
		"failed (tls)":              {rocky9, api.TemplateCopy{State: api.CopyFailed, Code: "tls"}},
		"removed":                   {removed, api.TemplateCopy{State: api.CopyReady}},
		"removed, in use":           {used, api.TemplateCopy{State: api.CopyReady}},
		"removed, failed (changed)": {used, api.TemplateCopy{State: api.CopyFailed, Code: "changed"}},
		"removed, missing":          {used, api.TemplateCopy{State: api.CopyMissing}},
	} {
		if got := copyState(row.of, row.copy); got != want {
			t.Errorf("%+v is shown as %q, want %q", row.copy, got, want)
		}
	}
}
