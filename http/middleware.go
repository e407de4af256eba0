package http

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/wherry-kvm/wherry/http/api"
)

// Keys of what a request leaves for its log record.
const (
	keyRoute     = "route"
	keyRole      = "role"
	keyCaller    = "caller"
	keyOperation = "operation"
)

// record answers errors, logs the request and reports it to Options.Observe.
// It runs in a defer, so that a stream that was cut is recorded as well.
func (s *Server) record(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		c.Response().Header().Set("Server", "wherry/"+s.opts.Version)
		c.Response().Header().Set("X-Content-Type-Options", "nosniff")
		defer func() {
			took := time.Since(start)
			s.logRequest(c, took)
			if s.opts.Observe != nil {
				s.opts.Observe(routeOf(c), c.Request().Method, c.Response().Status, took)
			}
		}()
		// From here, so that a refused request's body cannot trickle in for ever
		// while net/http discards it.
		err := http.NewResponseController(c.Response()).SetReadDeadline(start.Add(bodyTimeout))
		if err == nil {
			err = next(c)
		}
		if err != nil {
			c.Error(err)
		}
		return nil
	}
}

// routeOf gives the pattern and never the path: a label with instance names in
// it would grow without bound.
func routeOf(c echo.Context) string {
	if r, ok := c.Get(keyRoute).(string); ok {
		return r
	}
	return "other"
}

func (s *Server) logRequest(c echo.Context, took time.Duration) {
	r, status := c.Request(), c.Response().Status
	level := slog.LevelInfo
	switch {
	case status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	case r.Method == http.MethodGet && status < http.StatusBadRequest, r.Method == http.MethodHead:
		level = slog.LevelDebug // nothing came of it; HEAD is a peer that looks around
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("route", routeOf(c)), slog.String("path", r.URL.Path),
		slog.Int("status", status), slog.Duration("duration", took), slog.String("remote", r.RemoteAddr),
	}
	for _, key := range []string{keyRole, keyCaller, keyOperation} {
		if v, ok := c.Get(key).(string); ok && v != "" {
			attrs = append(attrs, slog.String(key, v))
		}
	}
	s.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// recoverPanic turns a panic into an answer. The stack goes to the log alone.
func (s *Server) recoverPanic(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if e, ok := v.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(v) // a stream that must not look complete
			}
			s.log.Error("panic in a handler", "panic", v, "route", routeOf(c), "stack", string(debug.Stack()))
			err = api.NewProblem("internal", "the agent has a fault in %s %s; its log says more", c.Request().Method, routeOf(c))
		}()
		return next(c)
	}
}

// sameOrigin refuses what a web page of another origin sends through a
// browser on this host: a plain listener has no other way to tell.
func (s *Server) sameOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		if err := protection.Check(c.Request()); err != nil {
			return api.NewProblem("forbidden", "a web page of another origin sent this: %w", err)
		}
		return next(c)
	}
}

// authorise finds the caller's role and whether the route is open to it.
func (s *Server) authorise(c echo.Context, r route) error {
	granted, name, err := caller(c.Request())
	c.Set(keyRole, string(granted))
	c.Set(keyCaller, name)
	if err != nil {
		return err
	}
	if granted == rolePeer && !r.peer {
		return api.NewProblem("forbidden", "%s %s is for management; the certificate of %q is a peer's", r.method, r.path, name)
	}
	return nil
}
