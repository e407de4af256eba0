package process

import (
	"strings"
	"testing"
)

func TestParseCommand(t *testing.T) {
	for _, c := range []struct {
		args string
		want Found
		ok   bool
	}{
		{"qemu -name guest=vm1,debug-threads=on -uuid 5B7C", Found{Name: "vm1", UUID: "5b7c"}, true},
		{"qemu -uuid u -name guest=vm,,1,process=x", Found{Name: "vm,1", UUID: "u"}, true},
		{"qemu -name guest=vm1 -uuid u -incoming defer", Found{Name: "vm1", UUID: "u", Incoming: true}, true},
		{"qemu -name vm1 -uuid u", Found{}, false}, // not libvirt's
		{"qemu -name guest=vm1", Found{}, false},
		{"qemu -uuid u", Found{}, false},
		{"sh -c qemu", Found{}, false},
		{"", Found{}, false},
		{"qemu -name", Found{}, false},
		{"qemu -name guest= -uuid u", Found{}, false},
	} {
		got, ok := parseCommand([]byte(strings.ReplaceAll(c.args, " ", "\x00")))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %+v, %v; want %+v, %v", c.args, got, ok, c.want, c.ok)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	f.Add([]byte("qemu\x00-name\x00guest=a,,b,c\x00-uuid\x00u\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := parseCommand(b); ok && (got.Name == "" || got.UUID == "") {
			t.Errorf("%+v", got)
		}
	})
}
