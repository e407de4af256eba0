package operation

import (
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/store"
)

// sweepEvery bounds how often the journal is read through for old entries.
const sweepEvery = 10 * time.Minute

// sweep deletes ended operations that are older than Keep, but for those about
// which someone must decide, with their data and idempotency keys, and journals ends that the store refused before. Needs
// order. Failing is not serious: it is tried again.
func (e *Engine) sweep() {
	now := e.now()
	if !e.swept.IsZero() && now.Sub(e.swept) < sweepEvery {
		return
	}
	e.swept = now
	e.journalUnsaved()
	old := map[string]string{} // id -> idempotency key
	err := e.store.List(bucketOperations, func(id string, value []byte) error {
		if r, err := decode(id, value); err == nil && r.Ended() && !r.undecided() && now.Sub(r.UpdatedAt) > e.keep {
			old[id] = r.Key
		}
		return nil
	})
	if err == nil && len(old) > 0 {
		err = e.store.Update(func(tx store.Tx) error { return forget(tx, old) })
	}
	if err != nil {
		e.log.Warn("old operations not removed", "error", err)
	}
}

func forget(tx store.Tx, old map[string]string) error {
	for id, key := range old {
		if err := tx.Delete(bucketOperations, id); err != nil {
			return err
		}
		if key == "" {
			continue
		}
		if err := tx.Delete(bucketKeys, key); err != nil {
			return err
		}
	}
	return tx.List(bucketData, func(key string, _ []byte) error {
		id, _, _ := strings.Cut(key, "/")
		if _, gone := old[id]; !gone {
			return nil
		}
		return tx.Delete(bucketData, key)
	})
}

func (e *Engine) journalUnsaved() {
	e.mu.Lock()
	var unsaved []*entry
	for _, en := range e.live {
		if en.rec.Ended() {
			unsaved = append(unsaved, en)
		}
	}
	e.mu.Unlock()
	for _, en := range unsaved {
		if err := e.journalLate(en); err != nil {
			e.log.Error("end of operation not journalled", "operation", en.id, "error", err)
		}
	}
}

// journalLate journals an end that the store has refused. Needs order.
func (e *Engine) journalLate(en *entry) error {
	if err := e.journalOrdered(en, "journalled late", func(r *record) { r.Cancellable = false }, nil); err != nil {
		return err
	}
	e.mu.Lock()
	delete(e.live, en.id)
	e.mu.Unlock()
	return nil
}
