package leftover

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// File is what lies in a pool's folder.
type File struct {
	Pool  string
	ID    volume.Owned // its whole path and its identity
	Dir   bool
	Bytes int64 // on disk
	// ModifiedAt is when its content last changed.
	ModifiedAt time.Time
}

// Owner says what a path belongs to.
type Owner struct {
	Path string
	By   string // "instance vm", for people
	// Dev and Ino are those of the file that lies there, links followed; 0
	// where none does.
	Dev, Ino uint64
}

// owns tells whether the owner's path leads to the file, or into the folder.
func (o Owner) owns(f File) bool {
	return o.Path == f.ID.Path || o.Ino != 0 && o.Ino == f.ID.Ino && o.Dev == f.ID.Dev ||
		f.Dir && strings.HasPrefix(o.Path, f.ID.Path+"/")
}

// Names that Wherry gives in a pool's folder while something is being made.
const (
	ourPrefix     = ".wherry-"
	partialPrefix = ".wherry-template-"
	probePrefix   = ".wherry-probe-"
	scratchPrefix = ".wherry-scratch-"
	lockName      = ".wherry-lock"
)

// probeAge is when a probe is nobody's any more. No journal has it: a plan that
// is being made, here or for a peer, looks for it within minutes.
const probeAge = time.Hour

// Decide gives the files that nobody owns, by path; onlyOurs leaves out those
// that do not bear a name as Wherry gives.
func Decide(files []File, owners []Owner, onlyOurs bool, now time.Time) []api.Leftover {
	out := []api.Leftover{}
	for _, f := range files {
		name := filepath.Base(f.ID.Path)
		if name == lockName || f.Dir && !strings.HasPrefix(name, ourPrefix) {
			continue // other folders are other people's
		}
		if slices.ContainsFunc(owners, func(o Owner) bool { return o.owns(f) }) {
			continue
		}
		l := api.Leftover{Kind: kindOf(name), ID: f.ID.Path, Pool: f.Pool, Path: f.ID.Path, Bytes: f.Bytes, ModifiedAt: f.ModifiedAt.UTC(),
			Operation: operationIn(name), Delete: "removes it, while it is the one that was seen and no process has it open"}
		l.Made = l.Kind != api.LeftoverFile
		if onlyOurs && !l.Made || l.Kind == api.LeftoverProbe && now.Sub(f.ModifiedAt) < probeAge {
			continue
		}
		l.Why = "no instance, record, template, reservation or unfinished operation names it"
		if l.Made {
			l.Why = fmt.Sprintf("it has a name that only Wherry gives, to a %s, and %s", l.Kind, l.Why)
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b api.Leftover) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// operationIn gives the operation in ".wherry-OPERATION-TARGET", or "".
func operationIn(name string) string {
	rest, ours := strings.CutPrefix(name, ourPrefix)
	id, _, _ := strings.Cut(rest, "-")
	if _, err := ulid.ParseStrict(id); !ours || err != nil {
		return ""
	}
	return id
}

// Skipped gives the pools that are not looked at.
func Skipped(pools []api.Pool) (out []api.LeftoverSkipped) {
	for _, p := range pools {
		why := ""
		switch {
		case p.Identity != "":
			why = "its storage may be other hosts' too: what they own there is not known here"
		case !p.Active:
			why = "it is not active"
		case !filepath.IsAbs(p.Path):
			why = fmt.Sprintf("it is no folder (%s)", p.Type)
		default:
			continue
		}
		out = append(out, api.LeftoverSkipped{What: "pool " + p.Name, Why: why})
	}
	return out
}

func kindOf(name string) string {
	switch {
	case strings.HasPrefix(name, partialPrefix):
		return api.LeftoverPartial
	case strings.HasPrefix(name, probePrefix), strings.HasPrefix(name, scratchPrefix):
		return api.LeftoverProbe
	case strings.HasPrefix(name, ourPrefix):
		return api.LeftoverVolume
	}
	return api.LeftoverFile
}
