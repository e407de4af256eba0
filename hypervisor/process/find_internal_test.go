package process

import (
	"bytes"
	"strings"
	"testing"
)

const id = "11111111-2222-4333-8444-555555555555"

func TestStartedWith(t *testing.T) {
	for _, c := range []struct {
		args string
		want bool
	}{
		{"qemu -name guest=vm,debug-threads=on -S -uuid " + id + " -no-user-config", true},
		{"qemu -uuid " + strings.ToUpper(id) + " -name guest=vm", true},
		{"qemu -uuid 99999999-2222-4333-8444-555555555555 -name guest=vm", false},
		{"qemu -name guest=" + id + " -uuid x", false},
		{"qemu -name guest=vm -drive file=/images/" + id, false},
		{"qemu -name guest=vm -drive -uuid=" + id, false},
		{"qemu-img convert -uuid " + id, false}, // libvirt names every guest
		{"-uuid " + id + " -name guest=vm -uuid", false},
		{"qemu -name guest=vm -uuid", false},
		{"qemu", false},
		{"", false},
	} {
		command := []byte(strings.ReplaceAll(c.args, " ", "\x00") + "\x00")
		if got := startedWith(command, id); got != c.want {
			t.Errorf("%q: %v, want %v", c.args, got, c.want)
		}
	}
}

func FuzzStartedWith(f *testing.F) {
	f.Add([]byte("qemu\x00-name\x00guest=vm\x00-uuid\x00" + id + "\x00"))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, command []byte) {
		if startedWith(command, id) && !bytes.Contains(bytes.ToLower(command), []byte("-uuid\x00"+id)) {
			t.Errorf("%q was not started with the UUID", command)
		}
	})
}
