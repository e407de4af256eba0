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
		if got, err := parseSent([]byte(c.raw)); err != nil || got != "" != c.want {
			t.Errorf("%s: %q, %v; want one: %v", name, got, err, c.want)
		}
	}
	if _, err := parseSent([]byte(`[`)); err == nil {
		t.Error("an answer that is none was taken")
	}
}

// One handover is told from the next by its figures.
func TestSentMark(t *testing.T) {
	first := `{"status":"completed","setup-time":1,"total-time":92,"ram":{"transferred":419076,"normal":93}}`
	next := `{"status":"completed","setup-time":1,"total-time":92,"ram":{"transferred":419077,"normal":93}}`
	a, _ := parseSent([]byte(first))
	b, _ := parseSent([]byte(next))
	if again, _ := parseSent([]byte(first)); a != again || a == b {
		t.Errorf("marks %q and %q, again %q", a, b, again)
	}
}
