package operation

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// seizeAgain is how often the holder is told to let go: one that is past a
// point of no return may come to another where it can.
const seizeAgain = 500 * time.Millisecond

// Seize takes an instance's lock from whoever has it, operations that can be
// cancelled being cancelled, and waits until ctx ends. It needs no journal: the
// cancel is journalled when that can be done, and nobody waits for it. It gives
// the claim of the operation that had the instance at first, "" where none did,
// also with the "busy" problem of one that does not let go.
func (e *Engine) Seize(ctx context.Context, ref api.Ref, who string) (release func(), from Claim, err error) {
	ref = normal(ref)
	h := newHolder(holder{who: who})
	defer e.lockWaited(e.now())
	for {
		by, next := e.locks.try(ref, h, e.now())
		if by == nil {
			return e.locks.releaser(ref, h, e.now), from, nil
		}
		for _, o := range []*holder{by, next} {
			if o == nil || o.operation == "" {
				continue
			}
			if older := e.find(o.operation); older != nil {
				if from == "" {
					from = older.claim()
				}
				// On its own: the journal may be hanging.
				go func() { _, _ = e.Cancel(context.WithoutCancel(ctx), o.operation) }()
			}
		}
		wait, cancel := context.WithTimeout(ctx, seizeAgain)
		e.lingers(wait, ref, h, by)
		cancel()
		if ctx.Err() != nil {
			return nil, from, by.busy(ref)
		}
	}
}
