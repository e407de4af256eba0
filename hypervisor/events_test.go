package hypervisor

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
)

func TestSlowSubscriberIsToldThatItMissedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var h hub
		slow, quick := h.subscribe(ctx), h.subscribe(ctx)
		got := 0
		for i := range 3 * queue {
			h.publish(Event{Kind: KindLifecycle, Name: strconv.Itoa(i)}) // must not block
			if e := <-quick; e.Name == strconv.Itoa(i) {
				got++
			}
		}
		if got != 3*queue {
			t.Errorf("the quick one got %d of %d", got, 3*queue)
		}
		for i := range queue {
			if e := <-slow; e.Name != strconv.Itoa(i) {
				t.Fatalf("event %d is %+v", i, e)
			}
		}
		if e := <-slow; e.Kind != KindConnection || e.Detail != "overflow" {
			t.Errorf("after what was kept: %+v", e)
		}
		h.publish(Event{Kind: KindLifecycle, Name: "later"})
		if e := <-slow; e.Name != "later" {
			t.Errorf("after catching up: %+v", e)
		}
		cancel()
		synctest.Wait()
		if _, ok := <-slow; ok {
			t.Error("the channel is open after the context ended")
		}
		h.publish(Event{}) // nobody there: must neither block nor panic
	})
}
