package http

import (
	"context"

	"github.com/wherry-kvm/wherry/http/api"
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
func (s *Server) scrubTemplate(c *call) error { return onTemplate(c, s.opts.Templates.Scrub) }

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
