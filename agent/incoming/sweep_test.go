package incoming_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// What one reservation waits for, storage that does not answer for instance,
// keeps no other from its end.
func TestOneThatHangsKeepsNoOther(t *testing.T) {
	w := newWorld(t)
	hangs, release := make(chan struct{}), make(chan struct{})
	modify := w.options.Targets
	w.options.Targets = targetsFn(func(r api.TargetsRequest) error {
		close(hangs)
		<-release
		_, err := modify.Modify(t.Context(), r)
		return err
	})
	w.start()
	hung := w.request()
	hung.Lease = api.Duration(lease / 2)
	hung.Targets = []api.Target{{Type: "iscsi"}}
	w.ready(hung)
	other := w.request()
	other.Operation, other.Name, other.UUID = "01JZZZZZZZZZZZZZZZZZZOTHER", "other", "other"
	other.Disks[0].Place.Path = filepath.Join(w.pool, "other.qcow2")
	w.ready(other)

	ctx, cancel := context.WithCancel(t.Context())
	tick := make(chan time.Time)
	var run sync.WaitGroup
	run.Go(func() { w.Run(ctx, tick) })
	soon := time.After(20 * time.Second)
	next := func() {
		t.Helper()
		select {
		case tick <- time.Time{}:
		case <-soon:
			t.Fatal("the sweep hangs")
		}
	}
	defer run.Wait()
	defer cancel()
	defer close(release)
	w.pass(lease/2 + time.Second)
	next()
	<-hangs
	w.pass(lease)
	next()
	for {
		if _, err := w.Get(t.Context(), other.Operation); api.CodeOf(err) == "not-found" {
			break
		}
		next()
	}
	w.wantFiles()
	w.wantJournal(1)
}
