package http

import (
	"context"
	"net/http"
)

func (s *Server) incomingFacts(c *call) error {
	r, err := decode(c, false, checkFacts)
	if err != nil {
		return err
	}
	facts, err := s.opts.Incoming.Facts(c.ctx(), r)
	return answer(c, facts, err)
}

func (s *Server) reserveIncoming(c *call) error {
	r, err := decode(c, false, checkIncoming)
	if err != nil {
		return err
	}
	in, err := s.opts.Incoming.Reserve(c.ctx(), r)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", "/v1/incoming/"+in.ID)
	return c.json(http.StatusCreated, in)
}

func (s *Server) getIncoming(c *call) error   { return withID(c, s.opts.Incoming.Get) }
func (s *Server) renewIncoming(c *call) error { return withID(c, s.opts.Incoming.Renew) }

func (s *Server) commitIncoming(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	r, err := decode(c, false, checkCommit)
	if err != nil {
		return err
	}
	in, err := s.opts.Incoming.Commit(c.ctx(), id, r)
	return answer(c, in, err)
}

func (s *Server) removeIncoming(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	if err := noBody(c); err != nil {
		return err
	}
	return noContent(c, s.opts.Incoming.Remove(c.ctx(), id))
}

// withID answers 200 with what do gives for the id in the path.
func withID[T any](c *call, do func(context.Context, string) (T, error)) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	if err := noBody(c); err != nil {
		return err
	}
	v, err := do(c.ctx(), id)
	return answer(c, v, err)
}
