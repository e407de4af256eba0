package cleanup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// One at a time of each instance, others do not wait, and nothing is left.
func TestGuard(t *testing.T) {
	h := newHost(t)
	ref := api.Ref{Project: "blue", Name: "vm"}
	release, err := h.Guard(t.Context(), ref)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Guard(ctx, ref); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one: %v", err)
	}
	other, err := h.Guard(t.Context(), api.Ref{Project: "blue", Name: "other"})
	must(t, err)
	other()
	release()
	var held, most atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			release, err := h.Guard(t.Context(), ref)
			if err != nil {
				t.Error(err)
				return
			}
			if held.Add(1) > 1 {
				most.Store(2)
			}
			held.Add(-1)
			release()
		})
	}
	all.Wait()
	if most.Load() > 1 {
		t.Error("two had it at once")
	}
	if left, err := os.ReadDir(filepath.Join(h.Dir, "blue")); len(left) != 0 || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := h.Guard(t.Context(), api.Ref{Project: "blue", Name: "../vm"}); err == nil {
		t.Error("a name that leaves the folder")
	}
}
