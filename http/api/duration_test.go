package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

func TestDuration(t *testing.T) {
	for _, row := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{`"90s"`, 90 * time.Second, true},
		{`"1m30s"`, 90 * time.Second, true},
		{`"0"`, 0, true},
		{`90`, 0, false},
		{`"90"`, 0, false},
		{`"-1s"`, 0, false},
		{`""`, 0, false},
		{`"1y"`, 0, false},
		{`"9999999h"`, 0, false},
		{`{}`, 0, false},
	} {
		var d api.Duration
		err := json.Unmarshal([]byte(row.in), &d)
		if (err == nil) != row.ok || d.Std() != row.want {
			t.Errorf("%s: %s, %v", row.in, d.Std(), err)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, seed := range []string{`"90s"`, `"1m30s"`, `".5h"`, `"1µs"`, `-1`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, back api.Duration
		if json.Unmarshal(b, &d) != nil {
			return
		}
		sent, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(sent, &back); err != nil || back != d || d < 0 {
			t.Fatalf("%q became %q, then %s: %v", b, sent, back.Std(), err)
		}
	})
}
