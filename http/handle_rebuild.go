package http

import "github.com/wherry-kvm/wherry/http/api"

func (s *Server) rebuild(c *call) error {
	return act(c, false, checkRebuild, func(ref api.Ref, r api.RebuildRequest, k api.Idempotency) (api.Operation, error) {
		return s.opts.Rebuilds.Rebuild(c.ctx(), ref, r, k)
	})
}

func (s *Server) planRebuild(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	r, err := decode(c, false, checkRebuild)
	if err != nil {
		return err
	}
	plan, err := s.opts.Rebuilds.Plan(c.ctx(), ref, r)
	return answer(c, plan, err)
}
