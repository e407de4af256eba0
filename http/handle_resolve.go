package http

// resolveOperation settles an operation that needs a decision. Nothing is kept
// of an idempotency key: the same request again finds the operation as it is.
func (s *Server) resolveOperation(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	r, err := decode(c, false, checkResolve)
	if err != nil {
		return err
	}
	if _, err := c.idempotency("", r); err != nil {
		return err
	}
	return c.accepted(s.opts.Operations.Resolve(c.ctx(), id, r))
}

func (s *Server) settleIncoming(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	r, err := decode(c, false, checkSettle)
	if err != nil {
		return err
	}
	in, err := s.opts.Incoming.Settle(c.ctx(), id, r)
	return answer(c, in, err)
}
