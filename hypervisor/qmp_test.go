package hypervisor

import (
	"errors"
	"strings"
	"testing"
)

func TestQMPReturn(t *testing.T) {
	got, err := qmpReturn([]byte(`{"return": {"a": 1}, "id": "libvirt-5"}`))
	if err != nil || string(got) != `{"a": 1}` {
		t.Errorf("%s, error %v", got, err)
	}
	_, err = qmpReturn([]byte(`{"id":"x","error":{"class":"CommandNotFound","desc":"The command nonsense has not been found"}}`))
	qe, ok := errors.AsType[*QMPError](err)
	if !ok || qe.Class != "CommandNotFound" || qe.Error() != "The command nonsense has not been found" {
		t.Errorf("%v", err)
	}
	for name, in := range map[string]string{
		"no JSON": "x", "neither": `{"id":"x"}`, "an event": `{"event":"STOP"}`, "too large": `{"return":"` + strings.Repeat("x", maxReply) + `"}`,
	} {
		if got, err := qmpReturn([]byte(in)); err == nil {
			t.Errorf("%s: accepted as %s", name, got)
		}
	}
}

func FuzzQMPReturn(f *testing.F) {
	f.Add([]byte(`{"return":{}}`))
	f.Add([]byte(`{"error":{"class":"GenericError","desc":"x"}}`))
	f.Add([]byte(`{"return":null,"error":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := qmpReturn(in)
		if (got == nil) == (err == nil) {
			t.Fatalf("%q: %q and %v", in, got, err)
		}
	})
}
