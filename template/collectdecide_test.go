package template_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/template"
)

var decideAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// spare is a copy of 10 bytes that may go: nothing has stood on it for 100 h.
func spare(id string, change ...func(*template.Candidate)) template.Candidate {
	c := template.Candidate{Template: id, Pool: "p", Path: "/p/" + id, Ready: true, Fetchable: true, Bytes: 10, LastUsed: decideAt.Add(-100 * time.Hour)}
	for _, f := range change {
		f(&c)
	}
	return c
}

func removed(c *template.Candidate)  { c.Removed = true }
func recorded(c *template.Candidate) { c.Recorded = 1 }
func found(c *template.Candidate)    { c.Found = 1 }
func busy(c *template.Candidate)     { c.Busy = true }
func at(path string) func(*template.Candidate) {
	return func(c *template.Candidate) { c.Path = path }
}
func used(ago time.Duration) func(*template.Candidate) {
	return func(c *template.Candidate) { c.LastUsed = decideAt.Add(-ago) }
}

func TestDecide(t *testing.T) {
	age, space := template.Keeping{UnusedAge: 24 * time.Hour}, template.Keeping{MinFree: 20, AtLeast: time.Hour}
	full := map[string]template.Space{"p": {Free: 5, Capacity: 100}}
	for _, c := range []struct {
		name   string
		copies []template.Candidate
		pools  map[string]template.Space
		keep   template.Keeping
		want   []string
	}{
		{"nothing is asked for", []template.Candidate{spare("a")}, full, template.Keeping{}, nil},
		{"unused for long", []template.Candidate{spare("a"), spare("b", used(23*time.Hour)), spare("c", used(24*time.Hour))}, nil, age, []string{"a age", "c age"}},
		{"a ref of the store", []template.Candidate{spare("a", recorded)}, full, age, nil},
		{"a volume that was found", []template.Candidate{spare("a", found)}, full, age, nil},
		{"being sent", []template.Candidate{spare("a", busy)}, full, age, nil},
		{"not fetched yet", []template.Candidate{spare("a", func(c *template.Candidate) { c.Ready = false })}, full, age, nil},
		{"nowhere to fetch it from", []template.Candidate{spare("a", func(c *template.Candidate) { c.Fetchable = false })}, full, age, nil},
		{"on storage of other hosts too", []template.Candidate{spare("a", func(c *template.Candidate) { c.Shared = true })}, full, age, nil},
		{"enough room", []template.Candidate{spare("a")}, map[string]template.Space{"p": {Free: 20, Capacity: 100}}, space, nil},
		{"a pool of which nothing is known", []template.Candidate{spare("a")}, map[string]template.Space{"other": {Capacity: 1}}, space, nil},
		{"no more than needed, least lately used first", []template.Candidate{spare("new", used(2*time.Hour)), spare("old", used(9*time.Hour)), spare("mid", used(5*time.Hour))},
			full, space, []string{"old space", "mid space"}},
		{"one that has just arrived", []template.Candidate{spare("a", used(59*time.Minute)), spare("b", used(time.Hour))}, full, space, []string{"b space"}},
		{"one of old age that is kept for longer", []template.Candidate{spare("a", used(29*time.Hour)), spare("b", used(30*time.Hour))}, full,
			template.Keeping{UnusedAge: 24 * time.Hour, MinFree: 20, AtLeast: 30 * time.Hour}, []string{"b age"}},
		{"what goes by age makes room", []template.Candidate{spare("young", used(2*time.Hour)), spare("a"), spare("b")}, full,
			template.Keeping{UnusedAge: 24 * time.Hour, MinFree: 20}, []string{"a age", "b age"}},
		{"what was removed makes room", []template.Candidate{spare("young"), spare("a", removed), spare("b", removed)}, full, space, []string{"a removed", "b removed"}},
		{"another pool has room", []template.Candidate{spare("a", func(c *template.Candidate) { c.Pool = "q" })},
			map[string]template.Space{"p": {Free: 0, Capacity: 100}, "q": {Free: 100, Capacity: 100}}, space, nil},
		{"removed", []template.Candidate{spare("a", removed, used(0)), spare("b", removed, recorded), spare("c", removed, found), spare("d", removed, busy)}, nil,
			template.Keeping{}, []string{"a removed"}},
		{"removed before it was fetched", []template.Candidate{spare("a", removed, at("")), spare("b", at("")), spare("c", removed, at(""))}, nil,
			template.Keeping{}, []string{"a removed", "c removed"}},
		{"one file, one of two removed", []template.Candidate{spare("a", removed, at("/p/x")), spare("b", recorded, found, at("/p/x"))}, nil,
			template.Keeping{}, []string{"a removed"}},
		{"one file, the removed one is stood on", []template.Candidate{spare("a", removed, recorded, at("/p/x")), spare("b", at("/p/x"))}, full, age, nil},
		{"one file, both removed", []template.Candidate{spare("a", removed, recorded, at("/p/x")), spare("b", removed, at("/p/x"))}, nil, template.Keeping{}, nil},
		{"one file, the other was used lately", []template.Candidate{spare("a", at("/p/x")), spare("b", at("/p/x"), used(time.Hour))}, nil, age, nil},
		{"one file goes at once and counts once", []template.Candidate{spare("a", at("/p/x")), spare("b", at("/p/x")), spare("c", used(90*time.Hour)), spare("d", used(80*time.Hour))},
			full, space, []string{"a space", "b space", "c space"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, v := range template.Decide(c.copies, c.pools, c.keep, decideAt) {
				got = append(got, v.Template+" "+v.Reason)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("verdicts (-want +got): %s", d)
			}
		})
	}
}

// Whatever the copies, the pools and the settings: a file that anything stands
// on, or that somebody handles, is in no verdict that would delete it.
func TestDecideNeverTakesWhatIsUsed(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		copies := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) template.Candidate {
			path := rapid.SampledFrom([]string{"", "/p/1", "/p/2", "/p/3"}).Draw(r, "path")
			return template.Candidate{Pool: "p", Path: path, Removed: rapid.Bool().Draw(r, "removed"), Ready: rapid.Bool().Draw(r, "ready"),
				Fetchable: rapid.Bool().Draw(r, "fetchable"), Busy: rapid.IntRange(0, 4).Draw(r, "busy") == 0, Shared: rapid.IntRange(0, 4).Draw(r, "shared") == 0,
				Recorded: max(0, rapid.IntRange(-3, 2).Draw(r, "recorded")), Found: max(0, rapid.IntRange(-3, 2).Draw(r, "found")),
				LastUsed: decideAt.Add(-time.Duration(rapid.IntRange(0, 100).Draw(r, "used")) * time.Hour), Bytes: rapid.Int64Range(0, 50).Draw(r, "bytes")}
		}), 0, 8).Draw(r, "copies")
		for i := range copies {
			copies[i].Template = fmt.Sprint(i)
		}
		free := rapid.Int64Range(0, 100).Draw(r, "free")
		pools := map[string]template.Space{"p": {Free: free, Capacity: 100}}
		keep := template.Keeping{UnusedAge: time.Duration(rapid.IntRange(0, 50).Draw(r, "age")) * time.Hour, MinFree: rapid.IntRange(0, 90).Draw(r, "min"),
			AtLeast: time.Duration(rapid.IntRange(0, 50).Draw(r, "at least")) * time.Hour}
		verdicts := template.Decide(copies, pools, keep, decideAt)
		gone := map[string]string{}
		for _, v := range verdicts {
			if gone[v.Template] != "" {
				r.Fatalf("%s is told twice", v.Template)
			}
			gone[v.Template] = v.Reason
		}
		if pools["p"].Free != free {
			r.Fatal("the pools were changed")
		}
		for i, c := range copies {
			reason := gone[fmt.Sprint(i)]
			if reason == "" {
				continue
			}
			if c.Recorded > 0 || c.Busy {
				r.Fatalf("%+v goes by %s", c, reason)
			}
			if !c.Removed && (!c.Ready || !c.Fetchable || c.Shared || reason == template.ReasonRemoved || decideAt.Sub(c.LastUsed) < keep.AtLeast) {
				r.Fatalf("%+v goes by %s", c, reason)
			}
			// The file goes only if all of its templates let it go.
			all := !slices.ContainsFunc(copies, func(o template.Candidate) bool { return o.Path == c.Path && gone[o.Template] == "" })
			stood := slices.ContainsFunc(copies, func(o template.Candidate) bool {
				return c.Path != "" && o.Path == c.Path && (o.Recorded > 0 || o.Found > 0 || o.Busy)
			})
			if all && stood {
				r.Fatalf("the file of %+v goes, and something stands on it: %+v", c, copies)
			}
		}
	})
}
