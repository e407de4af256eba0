package incoming_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
)

// counting counts what reaches the disk.
type counting struct {
	store.Store
	puts atomic.Int64
}

func (c *counting) Put(bucket, key string, value []byte) error {
	c.puts.Add(1)
	return c.Store.Put(bucket, key, value)
}

// A migration renews every second. Where nothing but the lease moves, that costs
// the disk nothing, and an agent that is restarted at any moment of it keeps the
// reservation for a full lease.
func TestRenewingIsNotJournalled(t *testing.T) {
	w := newWorld(t)
	counted := &counting{Store: w.store}
	w.options.Store = counted
	w.start()
	w.ready(w.request())
	before := counted.puts.Load()
	for range 5 * int(lease/time.Second) {
		w.pass(time.Second)
		_, err := w.Renew(t.Context(), opID)
		must(t, err)
	}
	if n := counted.puts.Load() - before; n != 0 {
		t.Errorf("%d writes of the journal for nothing but the lease", n)
	}
	w.Sweep(t.Context())
	w.wantFiles("vm.qcow2")

	w.pass(lease - time.Second) // nearly over, by what memory says
	w.start()
	w.pass(lease - time.Second)
	w.Sweep(t.Context())
	w.wantFiles("vm.qcow2")
	w.wantJournal(1)
	w.pass(2 * time.Second)
	w.Sweep(t.Context())
	w.wantFiles()
}
