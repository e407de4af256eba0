package template

import (
	"errors"
	"slices"

	"github.com/wherry-kvm/wherry/template/fault"
)

// hostFault is a fault of this host, which no other origin can help with.
type hostFault struct{ *fault.Fault }

func (h hostFault) Unwrap() error { return h.Fault }

// ours makes a fault of what this host could not do in the pool's folder.
func (a *attempt) ours(code string, err error) error { return hostFault{explain(a.dir, code, err)} }

// fetch asks one origin after another, until one gave the image.
func (a *attempt) fetch() error {
	var tried tries
	for _, c := range a.near() {
		if end, err := a.try(c, &tried); end {
			return err
		}
	}
	far, err := a.far()
	if err != nil {
		tried.add(FromURL, "url", err)
	}
	for _, c := range far {
		if end, err := a.try(c, &tried); end {
			return err
		}
	}
	if end, err := a.others(&tried); end {
		return err
	}
	return tried.fault()
}

// others asks the peers of the configuration for what the URL did not give the
// first time. What a rule of this host refuses is not had from them either.
func (a *attempt) others(tried *tries) (end bool, err error) {
	if !tried.url || fault.Of(tried.fault()).Class != fault.Source || a.asksPeersFirst() {
		return false, nil
	}
	var peers tries
	origins, want := a.peers(a.ctx, a.t), a.proof()
	if len(origins) > 0 && len(want) == 0 {
		origins = nil
		peers.add(FromPeer, "", fault.New(fault.NoSource,
			"not asked: the checksum is that of the packed image, so that nobody can tell whether theirs is right; one that is to be believed is named by sync_from"))
	}
	for _, o := range origins {
		if end, err := a.try(candidate{o, FromPeer, want}, &peers); end {
			return true, err
		}
	}
	// One entry for all of them: many that have it not must leave room for what
	// is wrong with the URL, which is the one to decide.
	if len(peers.all) == 1 && len(origins) == 1 {
		tried.all = slices.Concat(peers.all, tried.all)
	} else if len(peers.all) > 0 {
		tried.all = slices.Concat([]fault.Named{{Name: "peers", Err: peers.fault()}}, tried.all)
	}
	return false, nil
}

// try asks one origin. end: another would not help, or is not needed.
func (a *attempt) try(c candidate, tried *tries) (end bool, err error) {
	err = a.from(c)
	if _, ours := errors.AsType[hostFault](err); ours || err == nil || a.ctx.Err() != nil {
		return true, err
	}
	a.log.Info("template origin failed", "template", a.id, "pool", a.pool, "origin", c.Name(), "error", err)
	tried.add(c.from, c.Name(), err)
	return false, nil
}

// from brings the image from one origin and publishes it.
func (a *attempt) from(c candidate) error {
	got, err := a.receive(&c, true)
	if err != nil {
		return err
	}
	wrong := a.verify(c, got)
	if wrong != nil && got.pieced {
		// The pieces may be of different contents. Whether the origin has the
		// right one is known after it gave all of it at once.
		if got, err = a.receive(&c, false); err != nil {
			return err
		}
		wrong = a.verify(c, got)
	}
	if wrong != nil {
		err := a.whatCame(wrong, !got.pieced)
		// No other origin is to go on from these bytes.
		if again := a.restart(&c); again != nil {
			return a.ours(fault.IO, errors.Join(again, err))
		}
		return err
	}
	return a.publish()
}

// verify compares what came with what it must be.
func (a *attempt) verify(c candidate, got received) error {
	if err := got.served.Match(c.want...); err != nil {
		return err
	}
	if a.t.Size > 0 || a.t.Digest != a.t.Checksum {
		// The digest was proven by another copy, or given by who knows it, and
		// says more than a weak checksum.
		return a.part.Sums().Match(a.t.Digest)
	}
	return nil
}

// tries collects what went wrong at each origin.
type tries struct {
	all []fault.Named
	// hopeless: the URL's origins gave other bytes than they should, each of
	// them, and will again.
	hopeless, url bool
}

func (t *tries) add(from, name string, err error) {
	if from == FromURL {
		t.hopeless = (t.hopeless || !t.url) && fault.Of(err).Permanent
		t.url = true
	}
	t.all = append(t.all, fault.Named{Name: name, Err: err})
}

// fault is that of all of them. Peers come and go, but a URL that was tried in
// full has nothing else to give.
func (t *tries) fault() error {
	joined := fault.Join(t.all...)
	if joined == nil {
		return fault.New(fault.NoSource, "there is nowhere to fetch it from: no URL, and no peer")
	}
	f := *joined
	if t.url {
		f.Permanent = t.hopeless
	}
	return &f
}
