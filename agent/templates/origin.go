package templates

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

const (
	// patience is how long a peer that sends enough already is waited for.
	patience = time.Minute
	// askAgain is when it is asked again where it does not say.
	askAgain = 5 * time.Second
)

// origin is a template's content at one peer.
type origin struct {
	url      string
	peer     Peer
	template template.Template
	trusted  bool // the connection proves who the peer is
	patient  bool // wait for a peer that sends enough already
	after    func(time.Duration) <-chan time.Time
	log      *slog.Logger

	rank   int
	broken error // there is no way to speak to it
	found  error // a moment ago: told by the first Open in place of asking again
}

// Name gives the peer's URL.
func (o *origin) Name() string { return "peer " + o.url }

// Open begins to read. The stream's ETag is the digest of the peer's content
// in quotes; it is the one that the template has, wherever that is known.
func (o *origin) Open(ctx context.Context, at source.At) (source.Stream, error) {
	if o.broken != nil {
		return source.Stream{}, peerFault(o.broken)
	}
	if err := o.found; err != nil {
		o.found = nil
		return source.Stream{}, peerFault(err)
	}
	content, err := o.await(ctx, at)
	if err != nil {
		return source.Stream{}, peerFault(err)
	}
	if err := o.agrees(content.Offer); err != nil {
		_ = content.Close() // nothing is wanted of it
		return source.Stream{}, err
	}
	return source.Stream{
		ReadCloser: faulty{content}, Offset: content.Offset,
		Travelled: content.Travelled, Allocated: content.Allocated,
		Validator: source.Validator{ETag: strconv.Quote(content.Digest), Total: content.Size},
	}, nil
}

// await asks for the content, for as long as the peer says "later" and
// patience lasts. A stream that was begun is always waited for: what has come
// of it is worth more than another place in a queue.
func (o *origin) await(ctx context.Context, at source.At) (Content, error) {
	for waited := time.Duration(0); ; {
		content, err := o.ask(ctx, at)
		p, ok := errors.AsType[*api.Problem](err)
		if !ok || p.Code != "overloaded" || !o.patient && at.Offset == 0 {
			return content, err
		}
		pause := min(max(p.RetryAfter, time.Second), askAgain*6)
		if p.RetryAfter == 0 {
			pause = askAgain
		}
		if waited += pause; waited > patience {
			return Content{}, err
		}
		o.log.Debug("a peer sends enough already", "peer", o.url, "template", o.template.ID, "again_in", pause)
		select {
		case <-ctx.Done():
			return Content{}, context.Cause(ctx)
		case <-o.after(pause):
		}
	}
}

// ask asks by the digest, which cannot mean other bytes, and by the id where
// the peer has none of that digest or none is known: the digest of a packed
// image's content is known only after it was unpacked once.
func (o *origin) ask(ctx context.Context, at source.At) (content Content, err error) {
	digest, _ := strconv.Unquote(at.ETag)
	for _, id := range o.ids() {
		content, err = o.peer.Content(ctx, id, at.Offset, digest)
		if code := api.CodeOf(err); code != "not-found" {
			break
		}
	}
	return content, err
}

func (o *origin) offer(ctx context.Context) (offer Offer, err error) {
	for _, id := range o.ids() {
		offer, err = o.peer.Offer(ctx, id)
		if code := api.CodeOf(err); code != "not-found" {
			break
		}
	}
	return offer, err
}

// ids gives what to ask for, the surest first.
func (o *origin) ids() []string {
	var out []string
	if o.template.Digest != "" {
		out = append(out, o.template.Digest)
	}
	// An id says nothing by itself: what the peer tells of it must be believed.
	if o.trusted || len(out) == 0 {
		out = append(out, o.template.ID)
	}
	return out
}

// agrees refuses a content that is not the template's, before it travels. A
// peer that lies about it is found out by the bytes.
func (o *origin) agrees(offer Offer) error {
	t := o.template
	same := t.Digest != "" && offer.Digest == t.Digest
	switch {
	case offer.Digest == "":
		return fault.New(fault.Peer, "does not say what it sends: an answer without the digest of the content")
	case t.Size > 0 && t.Digest != "" && !same:
		return fault.New(fault.Peer, "has %s under this id, here it is %s", offer.Digest, t.Digest)
	case t.Size > 0 && offer.Size != t.Size:
		return fault.New(fault.Peer, "offers %d bytes, the template has %d", offer.Size, t.Size)
	case same:
		return nil
	case !o.trusted:
		return fault.New(fault.Peer, "has another digest, and its word for it does not count: the connection does not prove who it is")
	case offer.Checksum != t.Checksum:
		return fault.New(fault.Peer, "has another image under this id: checksum %q, here %q", offer.Checksum, t.Checksum)
	case offer.Format != t.Format:
		return fault.New(fault.Peer, "has it registered as %q, here it is %q", offer.Format, t.Format)
	}
	return nil
}

// peerFault says what a peer's error means for a copy. What a peer answered is
// its own word; where none answered, the network's reason counts.
func peerFault(err error) error {
	p, answered := errors.AsType[*api.Problem](err)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case answered && p.Code != "peer-unreachable":
		return &fault.Fault{Code: fault.Peer, Class: fault.Source, Err: fmt.Errorf("%s (%s)", p.Detail, p.Code)}
	}
	return fault.Of(err)
}

// faulty gives the errors of reading as faults.
type faulty struct{ io.ReadCloser }

func (f faulty) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = peerFault(err)
	}
	return n, err
}
