package operation

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
)

// Earlier gives the operation that an idempotency key has begun. It is for
// requests that are judged before [Engine.Start]: one that is sent again must
// not be judged by what the first one has done meanwhile. Errors are as there.
func (e *Engine) Earlier(ctx context.Context, key api.Idempotency) (op api.Operation, found bool, err error) {
	return e.earlier(ctx, key)
}
