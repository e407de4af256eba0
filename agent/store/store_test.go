package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// implementations opens a fresh store of each kind.
var implementations = map[string]func(t testing.TB) store.Store{
	"memory": func(testing.TB) store.Store { return store.Memory() },
	"bolt": func(t testing.TB) store.Store {
		s, err := store.Open(filepath.Join(t.TempDir(), "store.db"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { must(t, s.Close()) })
		return s
	},
}

// conformance is what every store must do.
var conformance = map[string]func(t *testing.T, s store.Store){
	"get what was put":             getWhatWasPut,
	"values are copies":            valuesAreCopies,
	"list is ordered":              listIsOrdered,
	"list lets its function write": listMayWrite,
	"update is all or nothing":     updateIsAtomic,
	"ids never repeat":             idsNeverRepeat,
	"bad names":                    badNames,
	"closed":                       closed,
	"at the same time":             concurrent,
}

func TestConformance(t *testing.T) {
	for name, open := range implementations {
		t.Run(name, func(t *testing.T) {
			for what, check := range conformance {
				t.Run(what, func(t *testing.T) { check(t, open(t)) })
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listing(t testing.TB, s store.Tx, bucket string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, s.List(bucket, func(k string, v []byte) error { out[k] = string(v); return nil }))
	return out
}

func getWhatWasPut(t *testing.T, s store.Store) {
	must(t, s.Put("a", "k", []byte("one")))
	must(t, s.Put("b", "k", []byte("two")))
	must(t, s.Put("a", "k", []byte("three")))
	must(t, s.Put("a", "empty", nil))
	for _, want := range []struct{ bucket, key, value string }{{"a", "k", "three"}, {"b", "k", "two"}, {"a", "empty", ""}} {
		got, err := s.Get(want.bucket, want.key)
		if err != nil || string(got) != want.value {
			t.Errorf("%s/%s = %q, %v; want %q", want.bucket, want.key, got, err, want.value)
		}
	}
	must(t, s.Delete("a", "k"))
	must(t, s.Delete("a", "k"))
	must(t, s.Delete("nowhere", "k"))
	for _, bucket := range []string{"a", "nowhere"} {
		_, err := s.Get(bucket, "k")
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get of an absent key: %v", err)
		} else if !strings.Contains(err.Error(), `"k"`) || !strings.Contains(err.Error(), bucket) {
			t.Errorf("the error names neither key nor bucket: %v", err)
		}
	}
}

func valuesAreCopies(t *testing.T, s store.Store) {
	in := []byte("value")
	must(t, s.Update(func(tx store.Tx) error {
		if err := tx.Put("a", "k", in); err != nil {
			return err
		}
		in[0] = 'X'
		return nil
	}))
	got, err := s.Get("a", "k")
	must(t, err)
	got[1] = 'Y'
	must(t, s.List("a", func(_ string, v []byte) error { v[2] = 'Z'; return nil }))
	if again, _ := s.Get("a", "k"); string(again) != "value" {
		t.Errorf("stored value became %q", again)
	}
}

func listIsOrdered(t *testing.T, s store.Store) {
	for _, k := range []string{"10", "9", "B", "a", "1"} {
		must(t, s.Put("a", k, []byte(k)))
	}
	var keys []string
	must(t, s.List("a", func(k string, _ []byte) error { keys = append(keys, k); return nil }))
	if diff := cmp.Diff([]string{"1", "10", "9", "B", "a"}, keys); diff != "" {
		t.Error(diff)
	}
	stop := errors.New("stop")
	n := 0
	if err := s.List("a", func(string, []byte) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("a listing told to stop gave %v after %d keys", err, n)
	}
	if got := listing(t, s, "nowhere"); len(got) != 0 {
		t.Errorf("an absent bucket lists %v", got)
	}
}

func listMayWrite(t *testing.T, s store.Store) {
	must(t, s.Put("a", "1", []byte("x")))
	must(t, s.Put("a", "2", []byte("x")))
	must(t, s.List("a", func(k string, _ []byte) error {
		if err := s.Delete("a", k); err != nil {
			return err
		}
		return s.Put("b", k, nil)
	}))
	must(t, s.Update(func(tx store.Tx) error {
		return tx.List("b", func(k string, _ []byte) error { return tx.Put("c", k, nil) })
	}))
	if a, c := listing(t, s, "a"), listing(t, s, "c"); len(a) != 0 || len(c) != 2 {
		t.Errorf("a = %v, c = %v", a, c)
	}
}

func updateIsAtomic(t *testing.T, s store.Store) {
	must(t, s.Put("a", "k", []byte("before")))
	no := errors.New("no")
	err := s.Update(func(tx store.Tx) error {
		must(t, tx.Put("a", "k", []byte("after")))
		must(t, tx.Put("new", "k", nil))
		if v, err := tx.Get("a", "k"); err != nil || string(v) != "after" {
			t.Errorf("a transaction does not read its own write: %q, %v", v, err)
		}
		return no
	})
	if !errors.Is(err, no) {
		t.Errorf("update returned %v", err)
	}
	if v, _ := s.Get("a", "k"); string(v) != "before" {
		t.Errorf("a dropped transaction left %q", v)
	}
	if got := listing(t, s, "new"); len(got) != 0 {
		t.Errorf("a dropped transaction left %v", got)
	}
	must(t, s.Update(func(tx store.Tx) error {
		return errors.Join(tx.Delete("a", "k"), tx.Put("a", "l", []byte("v")))
	}))
	if diff := cmp.Diff(map[string]string{"l": "v"}, listing(t, s, "a")); diff != "" {
		t.Error(diff)
	}
}

func idsNeverRepeat(t *testing.T, s store.Store) {
	for want := range uint64(3) {
		if id, err := s.NextID("a"); err != nil || id != want+1 {
			t.Errorf("id = %d, %v; want %d", id, err, want+1)
		}
	}
	if id, err := s.NextID("b"); err != nil || id != 1 {
		t.Errorf("another bucket's id = %d, %v", id, err)
	}
}

func badNames(t *testing.T, s store.Store) {
	long := strings.Repeat("x", store.MaxKey+1)
	for _, name := range []string{"", long} {
		for what, err := range map[string]error{
			"put key":    s.Put("a", name, nil),
			"put bucket": s.Put(name, "k", nil),
			"delete":     s.Delete("a", name),
		} {
			if !errors.Is(err, store.ErrInvalid) {
				t.Errorf("%s with a name of %d bytes: %v", what, len(name), err)
			}
		}
		if _, err := s.NextID(name); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("next id: %v", err)
		}
		if _, err := s.Get("a", name); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("get: %v", err)
		}
	}
	must(t, s.Put(long[1:], long[1:], []byte("v")))
	if v, err := s.Get(long[1:], long[1:]); err != nil || string(v) != "v" {
		t.Errorf("the longest name: %q, %v", v, err)
	}
}

func closed(t *testing.T, s store.Store) {
	must(t, s.Put("a", "k", nil))
	must(t, s.Close())
	must(t, s.Close())
	_, getErr := s.Get("a", "k")
	_, idErr := s.NextID("a")
	for what, err := range map[string]error{
		"put": s.Put("a", "k", nil), "delete": s.Delete("a", "k"), "get": getErr, "next id": idErr,
		"list":   s.List("a", func(string, []byte) error { return nil }),
		"update": s.Update(func(store.Tx) error { return nil }),
	} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after close: %v", what, err)
		}
	}
}

func concurrent(t *testing.T, s store.Store) {
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 5 {
				if err := s.Put("a", fmt.Sprintf("%d-%d", w, i), nil); err != nil {
					t.Error(err)
				}
				if err := s.List("a", func(string, []byte) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := listing(t, s, "a"); len(got) != 20 {
		t.Errorf("%d keys", len(got))
	}
}

// TestImplementationsAgree drives both stores with the same calls.
func TestImplementationsAgree(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		mem, bolt := store.Memory(), implementations["bolt"](t)
		defer func() { must(t, bolt.Close()) }()
		name := rapid.SampledFrom([]string{"a", "b", "", "cc"})
		for range rapid.IntRange(1, 15).Draw(r, "calls") {
			bucket, key, value := name.Draw(r, "bucket"), name.Draw(r, "key"), []byte(name.Draw(r, "value"))
			var act func(s store.Store) error
			switch rapid.IntRange(0, 2).Draw(r, "call") {
			case 0:
				act = func(s store.Store) error { return s.Put(bucket, key, value) }
			case 1:
				act = func(s store.Store) error { return s.Delete(bucket, key) }
			case 2:
				act = func(s store.Store) error {
					return s.Update(func(tx store.Tx) error {
						return errors.Join(tx.Put(bucket, "t", value), tx.Delete("a", key))
					})
				}
			}
			if m, b := act(mem), act(bolt); (m == nil) != (b == nil) {
				r.Fatalf("memory says %v, bolt says %v", m, b)
			}
			for _, bucket := range []string{"a", "b", "cc"} {
				if diff := cmp.Diff(listing(t, mem, bucket), listing(t, bolt, bucket)); diff != "" {
					r.Fatal(diff)
				}
			}
		}
	})
}
