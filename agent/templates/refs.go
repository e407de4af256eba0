package templates

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

const (
	// settle is how long two witnesses may disagree before it is told: a
	// volume that is being made or removed is known to one of them first.
	settle = time.Minute
	// staleAfter is how long the volume and the instance of a recorded ref must
	// have been gone before the ref is dropped.
	staleAfter = time.Hour
	// lookTimeout bounds what a reader of the templates waits for the chains.
	lookTimeout = 3 * time.Second
	lookAgain   = 15 * time.Second // after one that failed
)

// ChainReader reads what the disks of this host really stand on.
type ChainReader interface {
	// Read gives the chains of all instances, and those of the volumes that no
	// instance has. It returns when ctx ends.
	Read(ctx context.Context, volumes ...string) (template.Chains, error)
}

// RefsOptions are what a [Refs] needs; all but Now are required.
type RefsOptions struct {
	Registry *template.Registry
	Chains   ChainReader
	Records  record.Dir
	Publish  func(api.Event)
	Log      *slog.Logger
	Now      func() time.Time
}

// Refs joins the refs that the store knows with those that were found in the
// chains. Either kind keeps a copy. What only one side knows is a
// disagreement: it is told once, in the log and as an event, and counted.
type Refs struct {
	RefsOptions
	reading chan struct{} // one refresh at a time

	mu       sync.Mutex
	dirty    bool // something was recorded, or happened to an instance
	last     time.Time
	failure  error
	failedAt time.Time
	unread   []string
	all      []template.Use
	uses     map[string][]template.Use // by path of the copy
	disagree map[string]*disagreement  // by template, pool and volume
	gone     map[string]time.Time      // recorded volumes, since when
}

// disagreement is a ref of which only one side knows.
type disagreement struct {
	since time.Time
	told  bool
}

// NewRefs makes one that has read nothing yet.
func NewRefs(o RefsOptions) *Refs {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Refs{RefsOptions: o, reading: make(chan struct{}, 1), dirty: true,
		disagree: map[string]*disagreement{}, gone: map[string]time.Time{}}
}

// Changed notes that the next reader needs a new look.
func (r *Refs) Changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty = true
}

// Run looks anew at every tick where something changed, and otherwise at the
// first one after so long, until ctx ends.
func (r *Refs) Run(ctx context.Context, ticks <-chan time.Time, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		r.mu.Lock()
		due := r.dirty || r.Now().Sub(r.last) >= every
		r.mu.Unlock()
		if due {
			r.Refresh(ctx) //nolint:errcheck // it was logged, and is tried again
		}
	}
}

// Refresh reads the chains. Its error says that nothing new is known; what was
// known stays.
func (r *Refs) Refresh(ctx context.Context) error {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	r.dirty = false // what changes from here on is for the next look
	r.mu.Unlock()
	all := r.Registry.List()
	var volumes []string
	for _, t := range all {
		for _, ref := range t.Refs {
			volumes = append(volumes, ref.Volume)
		}
	}
	chains, err := r.Chains.Read(ctx, volumes...)
	if err != nil {
		r.failed(ctx, err)
		return fmt.Errorf("template refs: %w", err)
	}
	asRecorded(&chains, volumes)
	uses := map[string][]template.Use{}
	for _, t := range all {
		for _, c := range t.Copies {
			if c.Path != "" && uses[c.Path] == nil {
				uses[c.Path] = chains.On(template.FileAt(c.Path))
			}
		}
	}
	r.adopt(chains, uses)
	r.tell(all)
	r.dropStale(ctx, all, chains)
	return nil
}

// asRecorded gives the volumes that were found the names that the store has for
// them: one may have gone through a link.
func asRecorded(chains *template.Chains, volumes []string) {
	for _, path := range volumes {
		f := template.FileAt(path)
		for i, u := range chains.Uses {
			if f.Ino != 0 && len(u.Layers) > 0 && u.Layers[0].Ino == f.Ino && u.Layers[0].Dev == f.Dev {
				chains.Uses[i].Volume = path
			}
		}
	}
}

// failed keeps what was known, and says once that it grows old.
func (r *Refs) failed(ctx context.Context, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty = true
	if r.failure == nil && ctx.Err() == nil {
		r.Log.Warn("what the instances stand on cannot be read; no template copy is collected meanwhile", "error", err)
	}
	r.failure, r.failedAt = err, r.Now()
}

func (r *Refs) adopt(chains template.Chains, uses map[string][]template.Use) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(chains.Unread, r.unread) && len(chains.Unread) > 0 {
		r.Log.Warn("not every disk can be followed to what it stands on; no template copy is collected meanwhile", "unread", chains.Unread)
	}
	r.failure, r.unread, r.all, r.uses, r.last = nil, chains.Unread, chains.Uses, uses, r.Now()
}

// tell keeps account of disagreements.
func (r *Refs) tell(all []template.Template) {
	now := r.Now()
	r.mu.Lock()
	seen := map[string]bool{}
	var events []api.Event
	for _, t := range all {
		for _, ref := range r.merged(t) {
			if ref.Known == api.RefBoth {
				continue
			}
			key := t.ID + "\x00" + ref.Pool + "\x00" + ref.Volume
			seen[key] = true
			d := r.disagree[key]
			if d == nil {
				d = &disagreement{since: now}
				r.disagree[key] = d
			}
			if !d.told && now.Sub(d.since) >= settle {
				d.told = true
				events = append(events, refEvent(now, t.ID, ref, disagreementText(t.ID, ref)))
			}
		}
	}
	for key := range r.disagree {
		if !seen[key] {
			delete(r.disagree, key)
		}
	}
	r.mu.Unlock()
	for _, e := range events {
		r.Log.Warn("template ref", "template", e.Template.ID, "volume", e.Template.Volume, "known", e.Template.State, "message", e.Detail)
		r.Publish(e)
	}
}

func disagreementText(id string, ref api.TemplateRef) string {
	if ref.Known == api.RefFound {
		return fmt.Sprintf("volume %q stands on template %q, which the store does not know", ref.Volume, id)
	}
	return fmt.Sprintf("volume %q is recorded to stand on template %q, and is gone or stands on something else", ref.Volume, id)
}

func refEvent(at time.Time, id string, ref api.TemplateRef, text string) api.Event {
	return api.Event{Kind: "template", At: at.UTC(), Project: ref.Project, Instance: ref.Instance, Detail: text,
		Template: &api.TemplateEvent{ID: id, Pool: ref.Pool, State: ref.Known, Volume: ref.Volume, Message: text}}
}

// dropStale drops refs whose volume and instance have both been gone for long.
// A ref is written after its volume was reserved, so one that has neither is
// what a deletion by hand, or one that failed half-way, has left; nobody would
// ever take it back, and the copy would stay for ever. Where anything was left
// unread, nothing is certain.
func (r *Refs) dropStale(ctx context.Context, all []template.Template, chains template.Chains) {
	now := r.Now()
	gone := map[string]time.Time{}
	for _, t := range all {
		for _, ref := range t.Refs {
			if len(chains.Unread) > 0 || !slices.Contains(chains.Gone, ref.Volume) || r.lives(ref, chains) {
				continue
			}
			r.mu.Lock()
			since, known := r.gone[ref.Volume]
			r.mu.Unlock()
			if !known {
				since = now
			}
			if now.Sub(since) < staleAfter {
				gone[ref.Volume] = since
				continue
			}
			if err := r.Registry.RemoveRef(ctx, ref.Volume); err != nil {
				r.Log.Warn("a template ref of a volume that is gone was not dropped", "volume", ref.Volume, "error", err)
				gone[ref.Volume] = since
				continue
			}
			text := fmt.Sprintf("the ref of volume %q to template %q was dropped: the volume and its instance %q have been gone for %s",
				ref.Volume, t.ID, ref.Instance, now.Sub(since).Round(time.Minute))
			r.Log.Warn("template ref dropped", "template", t.ID, "volume", ref.Volume, "instance", ref.Instance)
			r.Publish(refEvent(now, t.ID, api.TemplateRef{Project: ref.Project, Instance: ref.Instance, Disk: ref.Disk, Volume: ref.Volume, Pool: ref.Pool}, text))
		}
	}
	r.mu.Lock()
	r.gone = gone
	r.mu.Unlock()
}

// lives tells whether this host still knows the ref's instance.
func (r *Refs) lives(ref template.Ref, chains template.Chains) bool {
	if _, err := r.Records.Read(api.Ref{Project: ref.Project, Name: ref.Instance}); !errors.Is(err, record.ErrNotFound) {
		return true
	}
	return slices.ContainsFunc(chains.Uses, func(u template.Use) bool { return u.Project == ref.Project && u.Instance == ref.Instance })
}

// Look looks anew where something changed since the last time, so that a
// reader of the templates sees what has just been made. It waits for a few
// seconds at most, and not again for one that has just failed.
func (r *Refs) Look(ctx context.Context) {
	r.mu.Lock()
	due := r.dirty && (r.failure == nil || r.Now().Sub(r.failedAt) >= lookAgain)
	r.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	r.Refresh(ctx) //nolint:errcheck // then what is known must do
}

// Known gives the refs of a template by both witnesses, by volume, from memory.
func (r *Refs) Known(t template.Template) []api.TemplateRef {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.merged(t)
}

// merged joins both kinds of refs. Needs mu.
func (r *Refs) merged(t template.Template) []api.TemplateRef {
	out := []api.TemplateRef{}
	taken := map[string]bool{}
	for _, ref := range t.Refs {
		known := api.RefRecorded
		if r.stands(t, ref) {
			known = api.RefBoth
		}
		taken[ref.Volume] = true
		out = append(out, api.TemplateRef{Known: known, Project: ref.Project, Instance: ref.Instance, Disk: ref.Disk, Volume: ref.Volume, Pool: ref.Pool})
	}
	for _, c := range t.Copies {
		for _, u := range r.uses[c.Path] {
			// A volume on a file of two templates has its ref to one of them.
			if _, recorded := r.Registry.RefByVolume(u.Volume); recorded || taken[u.Volume] || c.Path == "" {
				continue
			}
			if owner, _, _ := r.Registry.ByPath(c.Path); owner.ID != t.ID {
				continue
			}
			taken[u.Volume] = true
			out = append(out, api.TemplateRef{Known: api.RefFound, Project: u.Project, Instance: u.Instance, Disk: u.Disk, Volume: u.Volume, Pool: c.Pool})
		}
	}
	slices.SortFunc(out, func(a, b api.TemplateRef) int { return cmp.Compare(a.Volume, b.Volume) })
	return out
}

// stands tells whether the volume was found to stand on the template's copy.
func (r *Refs) stands(t template.Template, ref template.Ref) bool {
	return slices.ContainsFunc(t.Copies, func(c template.Copy) bool {
		return c.Pool == ref.Pool && slices.ContainsFunc(r.uses[c.Path], func(u template.Use) bool { return u.Volume == ref.Volume })
	})
}

// Uses gives what was last found to stand on what.
func (r *Refs) Uses() []template.Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// Counts gives the disagreements that were told, and how much could not be
// read, for metrics.
func (r *Refs) Counts() (disagreements, unread int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.disagree {
		if d.told {
			disagreements++
		}
	}
	unread = len(r.unread)
	if r.failure != nil {
		unread = max(unread, 1)
	}
	return disagreements, unread
}
