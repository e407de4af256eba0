package hypervisor

import "testing"

func TestActive(t *testing.T) {
	for _, c := range []struct {
		d    Domain
		want bool
	}{
		{Domain{ID: 3, State: Running}, true},
		{Domain{ID: 3, State: Paused}, true},
		{Domain{ID: 3, State: Shutdown}, true},
		{Domain{ID: 3, State: PMSuspended}, true},
		{Domain{ID: -1, State: Shutoff}, false},
		{Domain{ID: -1, State: NoState}, false},
		{Domain{ID: -1, State: Crashed}, false},
		{Domain{ID: 3, State: Crashed}, true}, // on_crash "preserve"
	} {
		if got := c.d.Active(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.d, got, c.want)
		}
	}
}
