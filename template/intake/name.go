package intake

import (
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/template/fault"
)

// maxName is how much of a name is repeated, in bytes.
const maxName = 200

// name repeats a name that an image holds, and says what QEMU would make of it:
// not every name is a path. It decides nothing, all of them are refused.
func name(s string) string {
	shown := fmt.Sprintf("%q", fault.Clean(s, maxName))
	scheme, _, found := strings.Cut(s, ":")
	switch {
	case !found || strings.Contains(scheme, "/"):
		return shown
	case scheme == "json":
		return shown + " (a description of block devices)"
	case scheme == "file":
		return shown
	}
	// QEMU takes what stands before a colon for a protocol (nbd, ssh, fat, ...).
	return shown + fmt.Sprintf(" (the protocol %q)", fault.Clean(scheme, 20))
}
