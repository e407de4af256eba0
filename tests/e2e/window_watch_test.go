//go:build lab

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/tests/harness"
)

// watcher looks at both hosts from outside for as long as a case lasts.
type watcher struct {
	*world
	guest  *harness.Guest
	stop   func()
	mu     sync.Mutex
	course strings.Builder // which host the guest wrote on, one after the other
	early  string          // a source volume that went before the destination had confirmed
}

// watchEvery is how often: the guest writes a block each 20 ms at most.
const watchEvery = 20 * time.Millisecond

// watch begins to look at an instance that is on host a. confirmed tells whether
// the destination has taken it.
func (w *world) watch(name string, confirmed func() bool) *watcher {
	w.Helper()
	o := &watcher{world: w, guest: w.lab.Guest(name)}
	volume := filepath.Join(w.a.Images(), name+".qcow2")
	end, done := make(chan struct{}), make(chan struct{})
	o.stop = sync.OnceFunc(func() { close(end); <-done })
	w.Cleanup(o.stop)
	go func() {
		defer close(done)
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		seen := map[*side]int64{w.a: -1, w.b: -1}
		for {
			for _, s := range w.sides() {
				if last, err := o.guest.LastBlock(w.ctx, s.Host, "vda"); err == nil && last != seen[s] {
					seen[s] = last
					o.wrote(s)
				}
			}
			// First the file, then the word: it is given before the source hears it.
			if _, err := os.Lstat(volume); os.IsNotExist(err) && !confirmed() {
				o.mu.Lock()
				o.early = volume
				o.mu.Unlock()
			}
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	return o
}

func (o *watcher) wrote(on *side) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !strings.HasSuffix(o.course.String(), on.Name) {
		o.course.WriteString(on.Name)
	}
}

// blocks are the numbers that the guest has printed on a host.
func (o *watcher) blocks(on *side) []int64 {
	o.Helper()
	console, err := o.guest.Console(o.ctx, on.Host)
	o.must(err)
	return console.Blocks("vda")
}

// doubled are the blocks that were written by two copies: no number is used again
// while one copy runs.
func (o *watcher) doubled() []int64 {
	o.Helper()
	all := slices.Sorted(slices.Values(slices.Concat(o.blocks(o.a), o.blocks(o.b))))
	var out []int64
	for n := 1; n < len(all); n++ {
		if all[n] == all[n-1] {
			out = append(out, all[n])
		}
	}
	return slices.Compact(out)
}

// judge wants what holds in every case: no block of two copies but where libvirt
// itself has started a second one, no copy that came back after another had run,
// and no source volume that went too early.
func (o *watcher) judge() {
	o.Helper()
	o.mu.Lock()
	course, early := o.course.String(), o.early
	o.mu.Unlock()
	if early != "" {
		o.Errorf("%s was deleted before the destination had confirmed", early)
	}
	if again := o.doubled(); len(again) > 0 {
		o.Errorf("blocks %v were written by two copies (%s)", again, course)
	}
	if course != "a" && course != "ab" {
		o.Errorf("the guest wrote on the hosts %q, in this order", course)
	}
	for _, s := range o.sides() {
		console, err := o.guest.Console(o.ctx, s.Host)
		o.must(err)
		if said := console.Complaints(); len(said) > 0 {
			o.Errorf("the guest says on host %s: %q", s.Name, said)
		}
	}
}
