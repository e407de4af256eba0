package leftover_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/agent/leftover"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

// A pool that hangs hides itself, and what may stand in for its volumes, and
// nothing else. It holds one reading, however often it is asked for.
func TestAHungPoolIsNotLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ours, other := w.file(".wherry-01JZZZ-vda"), w.file("base.qcow2")
		w.pools = append(w.pools, api.Pool{Name: "hung", Path: "/srv/hung", Active: true})
		w.named = []string{"/srv/hung/vm.qcow2"}
		w.Chains = func(ctx context.Context) (template.Chains, error) {
			<-ctx.Done() // it reads the volumes of all pools
			return template.Chains{}, ctx.Err()
		}
		var readings atomic.Int32
		answer := make(chan struct{})
		w.Folder = func(pool, _ string) (out []leftover.File, err error) {
			if pool == "hung" {
				readings.Add(1)
				<-answer
				return nil, nil
			}
			for _, path := range []string{ours, other} {
				id, err := volume.Identify(path)
				if err != nil {
					return nil, err
				}
				out = append(out, leftover.File{Pool: pool, ID: id, Bytes: 1, ModifiedAt: time.Now()})
			}
			return out, nil
		}
		for range 2 {
			began := time.Now()
			list, err := w.List(t.Context())
			must(t, err)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
			if len(list.Leftovers) != 1 || list.Leftovers[0].Path != ours {
				t.Errorf("left over: %+v; want what bears our name alone", list.Leftovers)
			}
			says := func(what, why string) bool {
				return slices.ContainsFunc(list.Skipped, func(s api.LeftoverSkipped) bool { return s.What == what && strings.Contains(s.Why, why) })
			}
			if !says("pool hung", "does not answer") || !says("files of other names", "/srv/hung") {
				t.Errorf("skipped %+v", list.Skipped)
			}
		}
		if n := readings.Load(); n != 1 {
			t.Errorf("%d readings hang; want one", n)
		}
		out, err := w.Delete(t.Context(), []string{other, "/srv/hung/vm.qcow2"})
		must(t, err)
		if len(out.Deleted) != 0 || len(out.Kept) != 2 {
			t.Errorf("deleted %q, kept %+v", out.Deleted, out.Kept)
		}
		if _, err := os.Stat(filepath.Clean(other)); err != nil {
			t.Error(err)
		}

		close(answer)
		synctest.Wait()
		w.Chains = func(context.Context) (template.Chains, error) { return template.Chains{}, nil }
		list, err := w.List(t.Context())
		must(t, err)
		if len(list.Leftovers) != 2 || len(list.Skipped) != 0 {
			t.Errorf("once it answers: left over %+v, skipped %+v", list.Leftovers, list.Skipped)
		}
	})
}
