package daemon

import (
	"testing"

	"github.com/wherry-kvm/wherry/hypervisor"
)

// The same reason means another thing on each of two hosts.
func TestTold(t *testing.T) {
	for want, e := range map[string]hypervisor.Event{
		"stopped: migrated": {Action: "stopped", Detail: "migrated"},
		"resumed: migrated": {Action: "resumed", Detail: "migrated"},
		"defined":           {Action: "defined"},
	} {
		if got := told(e); got != want {
			t.Errorf("told(%+v) = %q; want %q", e, got, want)
		}
	}
}
