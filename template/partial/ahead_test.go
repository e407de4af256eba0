package partial

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/template/digest"
)

// While a hole is summed, what lies behind it goes on coming, or the link would
// stand still: nothing is summed nor written here, and all the same it is read
// on.
func TestDataComesWhileAHoleIsSummed(t *testing.T) {
	const hole, data = 200 << 20, 12 << 20
	f := newFilling(&Partial{sums: digest.For()}, Fill{Limit: 1 << 40})
	in := io.MultiReader(io.LimitReader(endless{}, hole), bytes.NewReader(bytes.Repeat([]byte("data"), data/4)))
	done := make(chan error, 1)
	go func() { done <- f.read(t.Context(), in) }()
	var taken int64
	select {
	case err := <-done:
		if err != nil || f.size != hole+data {
			t.Fatalf("%v at %d", err, f.size)
		}
	case <-time.After(time.Minute):
		t.Fatal("it is not read on")
	}
	// What waits takes no more memory than there are buffers.
	for buffers := 0; len(f.toSums) > 0; {
		c := <-f.toSums
		if taken += int64(len(c.b)); !c.hole {
			if buffers++; buffers > cap(f.free) {
				t.Fatalf("%d buffers", buffers)
			}
		}
	}
	if taken != hole+data {
		t.Errorf("%d bytes wait, of %d", taken, hole+data)
	}
}

// endless gives zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }
