package http

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/wherry-kvm/wherry/http/api"
)

// handleError answers an error as a problem document (RFC 9457). When the
// answer has begun already, the connection is cut: a reader must not take
// what it has for the whole.
func (s *Server) handleError(err error, c echo.Context) {
	if c.Response().Committed {
		s.log.Warn("answer cut off", "route", routeOf(c), "error", err)
		panic(http.ErrAbortHandler)
	}
	p := problemOf(err, c.Request())
	if p.Status >= http.StatusInternalServerError {
		s.log.Warn("request failed", "route", routeOf(c), "code", p.Code, "error", err)
	}
	writeProblem(c.Response(), p)
}

// problemOf finds the problem in err, or words one.
func problemOf(err error, r *http.Request) *api.Problem {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		if p.Status < 400 || p.Code == "" { // made by hand, not by NewProblem
			return api.NewProblem("internal", "%s", p.Detail)
		}
		return p
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		switch e.Code {
		case http.StatusNotFound:
			return api.NewProblem("not-found", "there is nothing at %q", r.URL.Path)
		case http.StatusMethodNotAllowed:
			return api.NewProblem("method-not-allowed", "%s cannot be used on %q", r.Method, r.URL.Path)
		}
	}
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return api.NewProblem("cancelled", "the caller left: %w", err) // for the log alone
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return api.NewProblem("timeout", "%w", err)
	}
	return api.AsProblem(err)
}

// writeProblem sends p. Its error is of no use: the caller is gone.
func writeProblem(w http.ResponseWriter, p *api.Problem) {
	b, err := json.Marshal(p)
	if err != nil { // a problem holds strings only
		b = []byte("{}")
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	h := w.Header()
	h.Set("Content-Type", api.MediaTypeProblem)
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(b)
}
