package http

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// maxWait bounds ?wait=. A longer one is cut to it and not refused: the caller
// asks again anyway.
const maxWait = time.Minute

// errDraining ends waiting requests and streams when the server shuts down.
var errDraining = errors.New("the agent is shutting down")

// untilDrained gives the request's context, which also ends with the server.
func (s *Server) untilDrained(c *call) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(c.ctx())
	stop := context.AfterFunc(s.draining, func() { cancel(errDraining) })
	return ctx, func() { stop(); cancel(nil) }
}

func (s *Server) listOperations(c *call) error {
	var f faults
	instance, status, project := c.QueryParam("instance"), c.QueryParam("status"), c.QueryParam("project")
	if instance != "" {
		f.name("instance", instance)
	}
	f.oneOf("status", status, api.StatusPending, api.StatusRunning, api.StatusSucceeded, api.StatusFailed,
		api.StatusCancelled, api.StatusNeedsDecision)
	if project != "" && project != allProjects {
		f.project("project", project)
	}
	if err := f.problem(); err != nil {
		return err
	}
	list, err := s.opts.Operations.List(c.ctx(), instance, status)
	if project != "" && project != allProjects {
		list = slices.DeleteFunc(slices.Clone(list), func(o api.Operation) bool { return o.Project != project })
	}
	return answer(c, api.OperationList{Operations: list}, err)
}

func (s *Server) getOperation(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	c.Set(keyOperation, id)
	wait, err := waitOf(c.QueryParam("wait"))
	if err != nil {
		return err
	}
	if wait == 0 {
		op, err := s.opts.Operations.Get(c.ctx(), id)
		return answer(c, op, err)
	}
	ctx, cancel := s.untilDrained(c)
	defer cancel()
	op, err := s.opts.Operations.Wait(ctx, id, wait)
	if err != nil && errors.Is(context.Cause(ctx), errDraining) {
		op, err = s.opts.Operations.Get(c.ctx(), id)
	}
	return answer(c, op, err)
}

func waitOf(v string) (time.Duration, error) {
	if v == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		var f faults
		f.add("wait", "must be a duration such as \"30s\"")
		return 0, f.problem()
	}
	return min(d, maxWait), nil
}

func (s *Server) cancelOperation(c *call) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	if err := noBody(c); err != nil {
		return err
	}
	op, err := s.opts.Operations.Cancel(c.ctx(), id)
	if err != nil {
		return err
	}
	c.Set(keyOperation, op.ID)
	return c.json(http.StatusAccepted, op)
}
