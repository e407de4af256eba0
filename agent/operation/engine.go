package operation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/wherry-kvm/wherry/agent/store"
	"github.com/wherry-kvm/wherry/http/api"
)

// Causes of the end of an operation's context, for [context.Cause].
var (
	// ErrShutdown: the agent stops. The operation must return as it is,
	// undoing nothing: the next start goes on with it.
	ErrShutdown = errors.New("the agent is shutting down")
	// ErrCancelled: someone asked for the operation to be cancelled.
	ErrCancelled = errors.New("cancelled on request")
)

// Defaults of [Options].
const (
	DefaultKeep        = 7 * 24 * time.Hour
	DefaultUndoTimeout = 2 * time.Minute
	DefaultEvents      = 10_000
)

// Store is what the engine needs of the agent's store; package store has it.
// Every write has reached the disk when it returns.
type Store interface {
	// Get returns an error that is store.ErrNotFound for an absent key.
	Get(bucket, key string) ([]byte, error)
	Put(bucket, key string, value []byte) error
	// List goes in the order of the keys.
	List(bucket string, fn func(key string, value []byte) error) error
	// Update keeps all or nothing of what fn wrote.
	Update(fn func(store.Tx) error) error
}

// Options of an engine. Only Store is required.
type Options struct {
	Store Store
	Log   *slog.Logger
	Now   func() time.Time
	// Keep is how long an ended operation stays readable.
	Keep time.Duration
	// UndoTimeout bounds each undo function.
	UndoTimeout time.Duration
	// Events is how many events are kept for readers that come back.
	Events int
	// OnLockWait is told how long each lock was waited for.
	OnLockWait func(time.Duration)
}

// Func is the work of an operation. Its context is the engine's, not the
// request's; it ends by Cancel (cause ErrCancelled) or Close (ErrShutdown),
// and the function must then return. The result is journalled as JSON.
//
// nil ends the operation as succeeded, a problem with code "needs-decision"
// as needs_decision without undoing anything; any other error runs what was
// given to [Op.Undo] and ends it as failed, or as cancelled where that was
// asked for.
type Func func(ctx context.Context, op *Op) (result any, err error)

// agentKey finds, in the context of an operation's work, the one that ends with
// the agent: that of the work may have ended by a cancel before.
type agentKey struct{}

// Detach gives an operation's work a context that ends with the agent, but not
// with a cancel: for what has to be done to its end once it has begun.
func Detach(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	agent, ok := ctx.Value(agentKey{}).(context.Context)
	if !ok {
		agent = ctx // no operation's: it ends as it does
	}
	stop := context.AfterFunc(agent, func() { cancel(context.Cause(agent)) })
	return out, func() { stop(); cancel(nil) }
}

// Engine runs operations. Its methods may be called at the same time.
type Engine struct {
	store       Store
	log         *slog.Logger
	now         func() time.Time
	keep        time.Duration
	undoTimeout time.Duration
	onLockWait  func(time.Duration)
	locks       locks
	events      *events

	// base is the parent of every operation's context; it ends with ErrShutdown.
	base context.Context
	stop context.CancelCauseFunc
	work sync.WaitGroup

	// order serialises journal writes, so that entries, idempotency keys and
	// event ids have one order. It is taken before mu and held over an fsync;
	// mu never is, so that reading does not wait for the disk.
	order sync.Mutex
	last  ulid.ULID // newest id; guarded by order
	swept time.Time // guarded by order

	mu       sync.Mutex
	live     map[string]*entry
	recovery map[string]Func
	// undecided has the operation about which someone must decide, by instance.
	undecided map[api.Ref]string
}

// Open reads the journal, takes the locks of unfinished operations and drops
// ended ones that are older than Keep. Register recoveries, then call Resume.
func Open(o Options) (*Engine, error) {
	if o.Store == nil {
		return nil, errors.New("operation engine: no store given")
	}
	e := &Engine{
		store: o.Store, log: o.Log, now: o.Now, onLockWait: o.OnLockWait,
		keep: or(o.Keep, DefaultKeep), undoTimeout: or(o.UndoTimeout, DefaultUndoTimeout),
		live: map[string]*entry{}, recovery: map[string]Func{}, undecided: map[api.Ref]string{},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.base, e.stop = context.WithCancelCause(context.Background())
	var err error
	if e.events, err = openEvents(e.store, or(o.Events, DefaultEvents), e.now, e.log); err != nil {
		return nil, fmt.Errorf("operation engine: %w", err)
	}
	if err := e.loadUnfinished(); err != nil {
		return nil, fmt.Errorf("operation journal: %w", err)
	}
	e.order.Lock()
	defer e.order.Unlock()
	e.sweep()
	return e, nil
}

func or[T ~int | ~int64](v, fallback T) T {
	if v <= 0 {
		return fallback
	}
	return v
}

// Close stops the engine: nothing new starts, the context of every running
// operation ends with ErrShutdown, and Close waits for them until ctx ends.
// An operation that did not finish stays unfinished in the journal. Streams of
// events are closed. The store is the caller's, to be closed after this.
func (e *Engine) Close(ctx context.Context) error {
	// Under order: an operation either was journalled and counted before, or
	// sees the engine stopped.
	e.order.Lock()
	e.stop(ErrShutdown)
	e.order.Unlock()
	idle := make(chan struct{})
	go func() { e.work.Wait(); close(idle) }()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		n := 0
		for _, k := range e.InFlight() {
			n += k
		}
		err = fmt.Errorf("%d operations did not stop in time: %w", n, context.Cause(ctx))
	}
	e.order.Lock()
	e.journalUnsaved()
	e.order.Unlock()
	return errors.Join(err, e.events.close())
}

func (e *Engine) closing() bool { return e.base.Err() != nil }

// Recover registers what finishes or rolls back an operation of the given
// kind that an earlier process left unfinished. Call it before Resume.
func (e *Engine) Recover(kind string, f func(ctx context.Context, op *Op) (result any, err error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recovery[kind] = f
}

// InFlight counts operations that have not ended, by kind.
func (e *Engine) InFlight() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]int{}
	for _, en := range e.live {
		if !en.rec.Ended() {
			out[en.kind]++
		}
	}
	return out
}

// Publish adds an event to the stream; its ID is given here, and At where it
// is zero.
func (e *Engine) Publish(ev api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events.publish(ev)
}

// Events replays the events after the given id and goes on with new ones.
// After 0 replays all that are kept, [LiveOnly] none. Where events after the
// id are no longer kept, the first one says so. The channel is closed when ctx
// ends, the engine closes, or the reader falls behind.
func (e *Engine) Events(ctx context.Context, after uint64) (<-chan api.Event, error) {
	return e.events.subscribe(ctx, after)
}
