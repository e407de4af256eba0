package template

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/template/source"
)

// Store is what the registry needs of a durable store: each write has reached
// the disk when it returns.
type Store interface {
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	List(bucket string, fn func(key string, value []byte) error) error
}

// Fetcher finds where a URL leads. source.Download is one.
type Fetcher interface {
	// Check says, without input or output, that a request would never be
	// answered. Errors are, or wrap, a *fault.Fault.
	Check(r source.Request) error
	// Resolve gives the places that have the image, best first, without asking
	// them yet. Errors are, or wrap, a *fault.Fault.
	Resolve(ctx context.Context, r source.Request) (source.Resolved, error)
}

// Intake decides whether a file may become a template.
type Intake interface {
	// Check looks into the open file, which is declared to be of the given
	// format. What it refuses is a *fault.Fault of code "image" or
	// "not-an-image", with the rule that was broken; any other error says that
	// it could not look. It neither closes nor moves the file.
	Check(ctx context.Context, file *os.File, format string) (ImageInfo, error)
}

// Kinds of origins.
const (
	FromURL  = "url"
	FromPeer = "peer"
	FromHost = "host" // another pool of this host
)

// Options of a registry. Store, Pools, Fetcher and Intake are required.
type Options struct {
	Store   Store
	Pools   func(ctx context.Context) ([]Pool, error)
	Fetcher Fetcher
	Intake  Intake
	// Peers gives the hosts that may have the template: the one of SyncFrom
	// first, then those of the configuration. They are asked by its digest.
	Peers func(ctx context.Context, t Template) []source.Origin
	Log   *slog.Logger
	// Now and After are the clock.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// DefaultPool is for a Spec that names none.
	DefaultPool string
	// MaxSize bounds the bytes of an image file, unpacked; default 2 TiB.
	MaxSize int64
	// Backoff is from a failure to the next attempt.
	Backoff Backoff
	// Downloads is how many run at once, from URLs and peers; default 4.
	Downloads int
	// Bandwidth for all of them together, in bytes per second; 0 is no limit.
	Bandwidth int64
	// Stopping is the cause of contexts that end because the agent stops: what
	// was begun is then kept, and goes on at the next start. A context that
	// ends for any other reason was cancelled by somebody.
	Stopping error
	// Notify is told of every change of state, after it was stored and without
	// a lock held. It must not block.
	Notify func(Template)
	// Received is told of bytes of content as they come, and from where:
	// [FromURL], [FromPeer] or [FromHost]. It must not block.
	Received func(from string, bytes int64)
	// Mounted tells whether a pool's folder lies on a file system that was
	// mounted there, and not on the system's own.
	Mounted func(folder string) bool
	// Tending is what becomes of copies that are ready.
	Tending Tending
}

// Defaults of [Options].
const (
	DefaultMaxSize   = 2 << 40 // of image files and virtual sizes
	DefaultDownloads = 4
)

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.After == nil {
		o.After = time.After
	}
	if o.MaxSize <= 0 {
		o.MaxSize = DefaultMaxSize
	}
	if o.Downloads <= 0 {
		o.Downloads = DefaultDownloads
	}
	if o.Stopping == nil {
		o.Stopping = errStopping
	}
	if o.Peers == nil {
		o.Peers = func(context.Context, Template) []source.Origin { return nil }
	}
	if o.Notify == nil {
		o.Notify = func(Template) {}
	}
	if o.Received == nil {
		o.Received = func(string, int64) {}
	}
	if o.Mounted == nil {
		o.Mounted = mounted
	}
	o.Tending.defaults()
}
