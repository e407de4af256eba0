package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/hypervisor"
)

// What is owed is tried again at every tick, and when libvirt comes.
func TestOccasions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tick, events := make(chan time.Time), make(chan hypervisor.Event)
		out := occasions(ctx, tick, events)
		told := func(want int) {
			t.Helper()
			synctest.Wait()
			if got := len(out); got != want {
				t.Errorf("told %d times; want %d", got, want)
			}
			for len(out) > 0 {
				<-out
			}
		}
		events <- hypervisor.Event{Kind: hypervisor.KindLifecycle, Detail: "up"}
		events <- hypervisor.Event{Kind: hypervisor.KindConnection, Detail: "down"}
		told(0)
		events <- hypervisor.Event{Kind: hypervisor.KindConnection, Detail: "up"}
		told(1)
		tick <- time.Now()
		tick <- time.Now() // nobody listens: it is one occasion
		told(1)
		close(events)
		tick <- time.Now()
		told(1)
	})
}
