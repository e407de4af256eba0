package sniff_test

import (
	"testing"

	"github.com/wherry-kvm/wherry/template/sniff"
)

func FuzzKind(f *testing.F) {
	f.Add([]byte("QFI\xfb\x00\x00\x00\x03"))
	f.Add([]byte("<html>"))
	f.Add([]byte(nil))
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, head []byte) {
		// A raw image may begin with anything but what is known as something else.
		kind := sniff.Kind(head)
		if again := sniff.Kind(append([]byte(nil), head...)); again != kind {
			t.Errorf("%q, then %q", kind, again)
		}
		if len(head) >= 4 && string(head[:4]) == "QFI\xfb" && kind != "qcow2" {
			t.Errorf("a qcow2 image taken for %q", kind)
		}
	})
}
