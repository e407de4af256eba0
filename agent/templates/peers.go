package templates

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/source"
)

// maxProbes is how many peers are asked for an offer at the same time.
const maxProbes = 8

// Peers finds other hosts that have a template.
type Peers struct {
	// Self is this host's own URL, which is not asked; "" where it has none.
	Self string
	// Known are the peers of the configuration.
	Known []string
	Dial  func(url string) (Peer, error)
	Log   *slog.Logger
	// After is the clock. Default: time.After.
	After func(time.Duration) <-chan time.Time
}

// Origins gives the hosts that may have t, the best first: those that would
// send it now, those that send enough already, and those that have not got it
// or do not answer, whose reasons belong into the message of a failure. Among
// equals the one of SyncFrom comes first, then the order of the configuration.
//
// It asks them all at once: one after the other, a few that are switched off
// would keep a repair waiting for minutes.
func (p *Peers) Origins(ctx context.Context, t template.Template) []source.Origin {
	all := p.candidates(t)
	if len(all) > 1 {
		places := make(chan struct{}, maxProbes)
		var asked sync.WaitGroup
		for _, o := range all {
			asked.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				o.probe(ctx)
			})
		}
		asked.Wait()
		slices.SortStableFunc(all, func(a, b *origin) int { return cmp.Compare(a.rank, b.rank) })
	}
	out := make([]source.Origin, len(all))
	for i, o := range all {
		// One that sends enough already is passed over for the next that is
		// free, and waited for where none is left.
		o.patient = i+1 == len(all) || all[i+1].rank != rankFree
		out[i] = o
	}
	return out
}

// candidates gives an origin for each other host, once.
func (p *Peers) candidates(t template.Template) []*origin {
	seen := map[string]bool{place(p.Self): true}
	var out []*origin
	for _, address := range append([]string{t.SyncFrom}, p.Known...) {
		key := place(address)
		if address == "" || seen[key] {
			continue
		}
		seen[key] = true
		o := &origin{url: address, template: t, after: p.After, log: p.Log}
		if o.after == nil {
			o.after = time.After
		}
		if o.log == nil {
			o.log = slog.New(slog.DiscardHandler)
		}
		// Whoever is not authenticated is believed in nothing but the bytes.
		o.trusted = strings.HasPrefix(key, "https://")
		o.peer, o.broken = p.Dial(address)
		out = append(out, o)
	}
	return out
}

// place is what two spellings of a peer's URL have in common.
func place(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	port := u.Port()
	if port == "" {
		port = "8470" // http/client.DefaultPort
	}
	return strings.ToLower(u.Scheme) + "://" + strings.ToLower(net.JoinHostPort(strings.TrimSuffix(u.Hostname(), "."), port))
}

// How soon a peer may send.
const (
	rankFree = iota
	rankBusy
	rankDoubtful
)

// probe asks for an offer and ranks the peer by it.
func (o *origin) probe(ctx context.Context) {
	if o.broken != nil {
		o.rank = rankDoubtful
		return
	}
	offer, err := o.offer(ctx)
	switch code := api.CodeOf(err); {
	case err == nil && o.agrees(offer) == nil:
		o.rank = rankFree
	case code == "overloaded":
		o.rank = rankBusy
	default:
		o.rank = rankDoubtful
	}
	switch api.CodeOf(err) {
	case "peer-unreachable":
		o.found = err
	case "not-found":
		o.found = api.NewProblem("not-found", "has no template %q", o.template.ID)
	}
}
