package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/partial"
	"github.com/wherry-kvm/wherry/template/source"
)

// attempt is one attempt to make a copy ready. It belongs to one goroutine.
type attempt struct {
	*Registry
	job
	f    *flight
	ctx  context.Context
	t    Template // as it was at the beginning
	dir  string   // folder of the pool
	part *partial.Partial
	// key is what the partial file can be taken up again with.
	key partial.Key
	// bad is the inode of a file at the copy's place that is known to be wrong.
	bad uint64
}

// attempt brings one copy to the state ready, or notes why it is not.
func (r *Registry) attempt(f *flight, j job) error {
	t, err := r.Get(j.id)
	if err != nil {
		return err
	}
	if c, ok := t.Ready(j.pool); ok {
		if became, _, err := look(c, t.Size); err == nil && became < altered {
			return nil
		}
	}
	a := &attempt{Registry: r, job: j, f: f, ctx: f.ctx, t: t}
	err = a.run()
	if err != nil {
		err = a.ended(err)
	}
	if a.part != nil {
		a.part.Close()
	}
	return err
}

// slot waits for one of the downloads that may run at once.
func (a *attempt) slot() (release func(), err error) {
	release = func() { <-a.slots }
	select {
	case a.slots <- struct{}{}:
		return release, nil
	default:
	}
	err = a.change(func(c *Copy) {
		c.clearFault()
		c.State, c.Message = StatePending, fmt.Sprintf("waiting: %d downloads at once", cap(a.slots))
	})
	if err != nil {
		return nil, err
	}
	a.report(a.f, 0, -1) // for those who wait too: the copy says for what
	select {
	case a.slots <- struct{}{}:
		return release, nil
	case <-a.ctx.Done():
		return nil, context.Cause(a.ctx)
	}
}

func (a *attempt) run() error {
	// What cannot work does not wait behind what does.
	if why := a.hopeless(); why != nil {
		return errors.Join(why, a.count())
	}
	release, err := a.slot()
	if err != nil {
		return err
	}
	defer release()
	if err := a.count(); err != nil {
		return err
	}
	a.report(a.f, 0, -1) // and no more
	if a.dir, err = a.poolPath(a.ctx, a.pool); err != nil {
		return err
	}
	// Before anybody is asked for a byte that could not be kept.
	if err := writable(a.dir); err != nil {
		return hostFault{fault.Of(err)}
	}
	for _, sum := range a.known() {
		adopted, err := a.adopt(publishedPath(a.dir, sum, a.t.Format), sum)
		if adopted || err != nil {
			return err
		}
	}
	if err := a.unmounted(a.dir); err != nil {
		return hostFault{fault.Of(err)}
	}
	return a.fetch()
}

// count notes that an attempt begins.
func (a *attempt) count() error {
	return a.change(func(c *Copy) {
		if a.asked || c.FailedSince == nil {
			c.Attempts = 0
		}
		c.Attempts++
		c.State, c.RetryAt, c.Collected = StatePending, nil, false
		c.clearFault()
	})
}

// hopeless says why the copy cannot be brought, if that is certain without
// asking anybody and without reading a file: its URL is none that would ever be
// asked, and there is nowhere else to look.
func (a *attempt) hopeless() error {
	if a.t.URL == "" {
		return nil
	}
	why := a.fetcher.Check(source.Request{URL: a.t.URL, Headers: a.t.Headers})
	if why == nil || len(a.near()) > 0 {
		return nil
	}
	dir, err := a.poolPath(a.ctx, a.pool)
	if err != nil {
		return err
	}
	for _, sum := range a.known() {
		if _, err := os.Lstat(publishedPath(dir, sum, a.t.Format)); err == nil {
			return nil // perhaps it is what is wanted
		}
	}
	return why
}

// known gives the digests under which the file may lie there: the template's,
// and that of a file that was verified and named just before a crash.
func (a *attempt) known() []string {
	var out []string
	if a.t.Digest != "" {
		out = append(out, a.t.Digest)
	}
	if c := a.t.copyOn(a.pool); c.Owned {
		sum := digest.SHA256 + ":" + strings.TrimSuffix(strings.TrimPrefix(filepath.Base(c.Path), filePrefix), "."+a.t.Format)
		if digest.Check(sum) == nil && sum != a.t.Digest {
			out = append(out, sum)
		}
	}
	return out
}

// change is changeCopy for the copy that is brought.
func (a *attempt) change(fn func(*Copy)) error {
	return a.changeCopy(a.id, a.pool, func(_ *Template, c *Copy) { fn(c) })
}
