package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// Deadlines of calls to a peer. The link may be cut in the middle of any.
const (
	factsTimeout   = 15 * time.Minute // the peer may have to read large layers
	reserveTimeout = time.Minute
	targetTimeout  = 2 * time.Minute
	shortTimeout   = 10 * time.Second
	removeTimeout  = 90 * time.Second // the peer waits for QEMU to go
)

// peers keeps one client for each peer.
type peers struct {
	files client.TLS
	log   *slog.Logger
	// insecure admits peers without TLS (listen.insecure).
	insecure bool
	// For contents of templates: how long a stream may bring nothing, and who
	// hears how many bytes travelled.
	silence  time.Duration
	received func(bytes int64)

	mu    sync.Mutex
	known map[string]*client.Client
}

func files(c config.Config) client.TLS {
	return client.TLS{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key}
}

func newPeers(c config.Config, log *slog.Logger, received func(bytes int64)) *peers {
	return &peers{files: files(c), log: log, insecure: c.Listen.Insecure, silence: c.Templates.IdleTimeout, received: received, known: map[string]*client.Client{}}
}

func (p *peers) get(url string) (*client.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.known[url]; ok {
		return c, nil
	}
	options := []client.Option{client.WithLog(p.log)}
	if p.insecure {
		options = append(options, client.WithInsecure())
	}
	plain := p.insecure && strings.HasPrefix(url, "http://")
	if p.files.Empty() && !plain {
		return nil, migrate.ErrNoIdentity
	}
	c, err := client.New(url, p.files, options...)
	if err != nil {
		return nil, err
	}
	p.known[url] = c
	return c, nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.known {
		c.Close()
	}
}

func (p *peers) migration(url string) (migrate.Peer, error) {
	c, err := p.get(url)
	if err != nil {
		return nil, err
	}
	return peer{c}, nil
}

func (p *peers) template(url string) (templates.Peer, error) {
	c, err := p.get(url)
	if err != nil {
		return nil, err
	}
	return content{c, p.silence, p.received}, nil
}

// peer gives every call to another agent a deadline.
type peer struct{ c *client.Client }

func within[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := call(ctx)
	return out, unreachable(err)
}

// unreachable gives an error the code that tells callers that no answer came,
// whether the peer could not be reached or did not answer in time.
func unreachable(err error) error {
	if _, ok := errors.AsType[*client.Unreachable](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return api.NewProblem("peer-unreachable", "%w", err)
	}
	return err
}

func (p peer) Facts(ctx context.Context, r api.FactsRequest) (api.Facts, error) {
	return within(ctx, factsTimeout, func(ctx context.Context) (api.Facts, error) { return p.c.Facts(ctx, r) })
}

func (p peer) Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error) {
	return within(ctx, reserveTimeout, func(ctx context.Context) (api.Incoming, error) { return p.c.Reserve(ctx, r) })
}

func (p peer) Renew(ctx context.Context, id string) (api.Incoming, error) {
	return within(ctx, shortTimeout, func(ctx context.Context) (api.Incoming, error) { return p.c.Renew(ctx, id) })
}

func (p peer) Commit(ctx context.Context, id string, r api.CommitRequest) (api.Incoming, error) {
	return within(ctx, 3*shortTimeout, func(ctx context.Context) (api.Incoming, error) { return p.c.Commit(ctx, id, r) })
}

// Settle may have to wait, as Remove does, until a QEMU has gone.
func (p peer) Settle(ctx context.Context, id string, r api.SettleRequest) (api.Incoming, error) {
	return within(ctx, removeTimeout, func(ctx context.Context) (api.Incoming, error) { return p.c.Settle(ctx, id, r) })
}

func (p peer) Remove(ctx context.Context, id string) error {
	_, err := within(ctx, removeTimeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.c.RemoveIncoming(ctx, id) })
	return err
}

func (p peer) Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	return within(ctx, targetTimeout, func(ctx context.Context) (api.TargetsResponse, error) { return p.c.ModifyTargets(ctx, r) })
}

// content is a peer that has templates. A stream has no deadline as a whole:
// one that brings nothing for so long fails.
type content struct {
	c        *client.Client
	silence  time.Duration
	received func(bytes int64)
}

func (p content) Offer(ctx context.Context, id string) (templates.Offer, error) {
	i, err := p.c.TemplateOffer(ctx, id)
	return templates.Offer(i), unreachable(err)
}

func (p content) Content(ctx context.Context, id string, offset int64, digest string) (templates.Content, error) {
	c, err := p.c.TemplateContent(ctx, client.ContentRequest{ID: id, Offset: offset, Digest: digest, Silence: p.silence, Received: p.received})
	if err != nil {
		return templates.Content{}, unreachable(err)
	}
	return templates.Content{ReadCloser: coded{c}, Offer: templates.Offer(c.ContentInfo), Offset: c.Offset, Travelled: c.Travelled}, nil
}

// coded gives the errors of a stream the codes of a call's.
type coded struct{ io.ReadCloser }

func (c coded) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	return n, unreachable(err)
}
