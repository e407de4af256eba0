package template

import (
	"maps"
	"slices"
	"time"
)

// Reasons to collect a copy.
const (
	ReasonRemoved = "removed" // its template was removed
	ReasonAge     = "age"     // nothing has stood on it for long
	ReasonSpace   = "space"   // its pool is nearly full
)

// Candidate is a copy as far as collecting it goes. Two of one path are two
// templates with the same bytes, which lie in one file.
type Candidate struct {
	Template, Pool, Path string
	// Removed: the template is a tombstone.
	Removed bool
	// Ready: the file is whole. Fetchable: it can be fetched again from where
	// nobody here has a say, such as a URL.
	Ready, Fetchable bool
	// Busy: it is being fetched, checked or sent.
	Busy bool
	// Shared: other hosts have the same pool, and may have volumes on it.
	Shared bool
	// Recorded and Found count the refs of the store, and the volumes that
	// were found to stand on the file.
	Recorded, Found int
	// LastUsed is when it arrived, or when a volume last came or went.
	LastUsed time.Time
	Bytes    int64 // on disk
}

// Space is what a pool's file system has, in bytes.
type Space struct{ Free, Capacity int64 }

// Keeping says how long unused copies are kept. UnusedAge 0: for ever. MinFree
// is the percentage of a pool under which they go, least lately used first;
// 0: never. AtLeast keeps a copy that has just arrived or been left: whoever
// asked for it is about to put a volume on it.
type Keeping struct {
	UnusedAge time.Duration
	MinFree   int
	AtLeast   time.Duration
}

// forEver tells whether nothing goes but what was removed.
func (k Keeping) forEver() bool { return k.UnusedAge == 0 && k.MinFree == 0 }

// Verdict is a copy that goes, and why.
type Verdict struct{ Template, Pool, Path, Reason string }

// Decide says which copies go. It looks nothing up: what is known of volumes
// and space is in its arguments, and a pool that is not there is never full.
func Decide(candidates []Candidate, pools map[string]Space, keep Keeping, now time.Time) []Verdict {
	var out []Verdict
	free := maps.Clone(pools)
	take := func(f file, reason string) {
		for _, c := range f.copies {
			out = append(out, Verdict{c.Template, c.Pool, c.Path, reason})
		}
		if space, known := free[f.pool]; known {
			space.Free += f.bytes
			free[f.pool] = space
		}
	}
	var unused []file
	for _, f := range files(candidates) {
		if f.live() == 0 {
			if f.idle() {
				take(f, ReasonRemoved)
			}
			continue
		}
		// Of those that share the file, one may have been removed: the file
		// is not its to take along.
		for _, c := range f.copies {
			if c.Removed && c.Recorded == 0 && !c.Busy {
				out = append(out, Verdict{c.Template, c.Pool, c.Path, ReasonRemoved})
			}
		}
		f.copies = slices.DeleteFunc(f.copies, func(c Candidate) bool { return c.Removed })
		switch {
		case now.Sub(f.lastUsed) < keep.AtLeast || !f.spare():
		case keep.UnusedAge > 0 && now.Sub(f.lastUsed) >= keep.UnusedAge:
			take(f, ReasonAge)
		default:
			unused = append(unused, f)
		}
	}
	slices.SortStableFunc(unused, func(a, b file) int { return a.lastUsed.Compare(b.lastUsed) })
	for _, f := range unused {
		if space, known := free[f.pool]; known && space.short(keep.MinFree) {
			take(f, ReasonSpace)
		}
	}
	return out
}

// short tells whether less than the percentage is free; never for 0.
func (s Space) short(percent int) bool {
	return percent > 0 && s.Capacity > 0 && float64(s.Free) < float64(s.Capacity)/100*float64(percent)
}

// file is all copies that lie in one file.
type file struct {
	pool            string
	copies          []Candidate
	recorded, found int
	busy            bool
	bytes           int64
	lastUsed        time.Time
}

// files joins the candidates by path, in their order. One without a path has
// no file to share.
func files(candidates []Candidate) []file {
	var out []file
	at := map[string]int{}
	for _, c := range candidates {
		i, known := at[c.Path]
		if !known || c.Path == "" {
			i = len(out)
			at[c.Path] = i
			out = append(out, file{pool: c.Pool, bytes: c.Bytes})
		}
		f := &out[i]
		f.copies = append(f.copies, c)
		f.recorded += c.Recorded
		f.found = max(f.found, c.Found)
		f.busy = f.busy || c.Busy
		if c.LastUsed.After(f.lastUsed) {
			f.lastUsed = c.LastUsed
		}
	}
	return out
}

// live counts the templates of the file that are not removed.
func (f file) live() (n int) {
	for _, c := range f.copies {
		if !c.Removed {
			n++
		}
	}
	return n
}

// idle tells whether nothing stands on the file, and nobody handles it.
func (f file) idle() bool { return f.recorded == 0 && f.found == 0 && !f.busy }

// spare tells whether the file may go although its templates are wanted.
func (f file) spare() bool {
	return f.idle() && !slices.ContainsFunc(f.copies, func(c Candidate) bool { return !c.Ready || !c.Fetchable || c.Shared })
}
