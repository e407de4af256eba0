package hypervisor

import "testing"

func TestSent(t *testing.T) {
	for name, c := range map[string]struct {
		raw  string
		want bool
	}{
		"never":                       {`{}`, false},
		"came from another host":      {`{"status":"completed"}`, false},
		"under way":                   {`{"status":"active","ram":{"total":1}}`, false},
		"paused before the last part": {`{"status":"pre-switchover","ram":{"total":1}}`, false},
		"failed":                      {`{"status":"failed","ram":{"total":1}}`, false},
		"cancelled":                   {`{"status":"cancelled"}`, false},
		"handed over":                 {`{"status":"completed","total-time":7,"ram":{"total":1}}`, true},
	} {
		if got, err := parseSent([]byte(c.raw)); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
	if _, err := parseSent([]byte(`[`)); err == nil {
		t.Error("an answer that is none was taken")
	}
}
