package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/errgroup"
)

// Time bounds of a connection. There is no bound on a whole response: contents
// and events stream for long, and every write has a deadline of its own.
const (
	headerTimeout   = 10 * time.Second
	bodyTimeout     = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	writeTimeout    = 30 * time.Second
	shutdownTimeout = 10 * time.Second

	maxHeader = 64 << 10 // bytes
)

// Options are the services behind the interface. Every service is required.
type Options struct {
	Instances  Instances
	Actions    InstanceActions
	Migrations Migrations
	Rebuilds   Rebuilds
	Incoming   Incoming
	Operations Operations
	Templates  Templates
	Targets    Targets
	Hosts      Hosts
	Shutdowns  Shutdowns
	Leftovers  Leftovers

	// Log gets one record for each request. Default: nothing is logged.
	Log *slog.Logger
	// Ready answers /readyz. Default: Hosts.Ready.
	Ready func(ctx context.Context) error
	// Metrics answers /metrics. Default: 404.
	Metrics http.Handler
	// Version is sent in the Server header.
	Version string
	// Share gives a share of the host's bandwidth to a content that another host
	// fetches; nil = as fast as it can be.
	Share func(content string) Share
	// Senders is how many templates are sent at once; a caller beyond that is
	// told to come again. Default: 3.
	Senders int
	// Sent hears, as it happens, how many bytes of templates were sent; holes
	// that were left out do not count. It must not block.
	Sent func(bytes int64)
	// Observe is called after each request with its route's pattern ("other"
	// where none matched). Streams count too, for as long as they lasted.
	Observe func(route, method string, status int, d time.Duration)
	// Heartbeat is the pause between two comments on an idle event stream.
	// Default: 15 s.
	Heartbeat time.Duration
}

// Server listens, serves and closes, in three steps.
type Server struct {
	opts      Options
	log       *slog.Logger
	api       http.Handler
	probes    http.Handler
	listeners []listener

	// draining ends when the server begins to shut down: streams and waiting
	// requests stop then, while ordinary ones may finish.
	draining context.Context
	drain    context.CancelFunc

	senders senders
	pace    time.Duration // for each MiB of content

	// unread is how long a reader may leave an event unread.
	unread time.Duration
}

// New makes a server; it does not listen yet. A missing service is an error.
func New(o Options) (*Server, error) {
	for _, s := range []any{o.Instances, o.Actions, o.Migrations, o.Rebuilds, o.Incoming, o.Operations, o.Templates, o.Targets, o.Hosts, o.Shutdowns, o.Leftovers} {
		if s == nil || reflect.ValueOf(s).Kind() == reflect.Pointer && reflect.ValueOf(s).IsNil() {
			return nil, errors.New("http server: a service is missing")
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = o.Hosts.Ready
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 15 * time.Second
	}
	s := &Server{opts: o, log: o.Log, unread: eventWriteTimeout, senders: newSenders(o.Senders), pace: writeTimeout}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.api = s.router(s.routes())
	s.probes = s.router(s.probeRoutes())
	return s, nil
}

// Serve answers on every listener until ctx ends, then lets running requests
// finish for up to 10 s. It returns nil after an orderly end. Listen comes
// first, Close after.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		server := s.httpServer(l)
		group.Go(func() error {
			if err := server.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			s.drain()
			// The requests' own time to finish; ctx is over already.
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			if err := server.Shutdown(end); err != nil {
				s.log.Warn("requests cut off at shutdown", "listener", l.Addr().String(), "error", err)
				return server.Close()
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *Server) httpServer(l listener) *http.Server {
	handler := s.api
	if l.kind == kindProbes {
		handler = s.probes
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.With("listener", l.Addr().String()).Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), kindKey{}, l.kind)
		},
	}
}

// router makes the handler of a set of routes. What lies around every request,
// from the outside: record, errors, recovery.
func (s *Server) router(routes []route) http.Handler {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	e.HTTPErrorHandler = s.handleError
	e.Use(s.record, s.recoverPanic, s.sameOrigin)
	for _, r := range routes {
		e.Add(r.method, r.path, s.handler(r))
	}
	return e
}
