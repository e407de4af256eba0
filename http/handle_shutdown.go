package http

import (
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

const shutdownPath = "/v1/host/shutdown"

func (s *Server) shutdown(c *call) error {
	r, err := decode(c, true, func(api.ShutdownRequest) faults { return nil })
	if err != nil {
		return err
	}
	key, err := c.idempotency("", r)
	if err != nil {
		return err
	}
	op, err := s.opts.Shutdowns.Shutdown(c.ctx(), r, key)
	if err == nil && op.ID == "" {
		// The store takes nothing, and the host goes down all the same.
		c.Response().Header().Set("Location", shutdownPath)
		return c.json(http.StatusAccepted, op)
	}
	return c.accepted(op, err)
}

func (s *Server) shutdownStatus(c *call) error {
	status, err := s.opts.Shutdowns.Status(c.ctx())
	return answer(c, status, err)
}

func (s *Server) setStopPolicy(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	p, err := decode(c, false, func(p api.StopPolicy) (f faults) { f.stopPolicy("", p); return f })
	if err != nil {
		return err
	}
	p, err = s.opts.Shutdowns.Policy(c.ctx(), ref, p)
	return answer(c, p, err)
}

func (s *Server) hook(c *call) error {
	r, err := decode(c, false, checkHook)
	if err != nil {
		return err
	}
	return noContent(c, s.opts.Shutdowns.Ended(c.ctx(), r))
}
