package http

import (
	"context"
	"net/http"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/extents"
)

func (s *Server) listTemplates(c *call) error {
	list, err := s.opts.Templates.List(c.ctx())
	return answer(c, list, err)
}

func (s *Server) getTemplate(c *call) error    { return withID(c, s.opts.Templates.Get) }
func (s *Server) removeTemplate(c *call) error { return withID(c, s.opts.Templates.Remove) }

func (s *Server) registerTemplate(c *call) error {
	r, err := decode(c, false, checkTemplate)
	if err != nil {
		return err
	}
	key, err := c.idempotency("", r)
	if err != nil {
		return err
	}
	return c.accepted(s.opts.Templates.Register(c.ctx(), r, key))
}

func (s *Server) retryTemplate(c *call) error { return onTemplate(c, s.opts.Templates.Retry) }

// onTemplate starts an operation on a template that needs nothing but its id.
func onTemplate(c *call, start func(ctx context.Context, id string, k api.Idempotency) (api.Operation, error)) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	if err := noBody(c); err != nil {
		return err
	}
	key, err := c.idempotency("", nil)
	if err != nil {
		return err
	}
	return c.accepted(start(c.ctx(), id, key))
}

// templateContent streams the image: plain with ranges, or as extents, which
// leave the holes out.
func (s *Server) templateContent(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	version := c.Request().Header.Get(extents.Header)
	if version != "" && version != "1" {
		var f faults
		f.add(extents.Header, "has the version %q; this agent knows version 1", version)
		return f.problem()
	}
	file, t, err := s.opts.Templates.Open(c.ctx(), id)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only read
	h := c.Response().Header()
	h.Set("Vary", extents.Header)
	if t.Digest != "" {
		h.Set("ETag", `"`+t.Digest+`"`)
	}
	w := newDeadlineWriter(c.Response())
	w.stop = s.draining
	if version == "" {
		h.Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, c.Request(), "", time.Time{}, file)
		return nil
	}
	h.Set("Content-Type", extents.MediaType)
	return extents.Encode(w, file)
}
