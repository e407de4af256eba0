package http

import (
	"net/http"

	"github.com/wherry-kvm/wherry/http/api"
)

// allProjects as ?project= of a list means every project.
const allProjects = "*"

func (s *Server) listInstances(c *call) error {
	project := ""
	if c.QueryParam("project") != allProjects {
		var err error
		if project, err = c.project(); err != nil {
			return err
		}
	}
	list, err := s.opts.Instances.List(c.ctx(), project)
	return answer(c, api.InstanceList{Instances: list}, err)
}

func (s *Server) getInstance(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	i, err := s.opts.Instances.Get(c.ctx(), ref)
	return answer(c, i, err)
}

func (s *Server) listDisks(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	disks, err := s.opts.Instances.Disks(c.ctx(), ref)
	return answer(c, api.DiskList{Disks: disks}, err)
}

func (s *Server) createInstance(c *call) error {
	project, err := c.project()
	if err != nil {
		return err
	}
	r, err := decode(c, false, checkCreate)
	if err != nil {
		return err
	}
	key, err := c.idempotency(project, r)
	if err != nil {
		return err
	}
	return c.accepted(s.opts.Actions.Create(c.ctx(), project, r, key))
}

// act is what the requests on one instance have in common. A T of its own
// kind is the body; where all of it is optional, so is the body.
func act[T any](c *call, optional bool, check func(T) faults, do func(api.Ref, T, api.Idempotency) (api.Operation, error)) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	r, err := decode(c, optional, check)
	if err != nil {
		return err
	}
	key, err := c.idempotency(ref.Project, r)
	if err != nil {
		return err
	}
	return c.accepted(do(ref, r, key))
}

func (s *Server) deleteInstance(c *call) error {
	return act(c, true, checkDelete, func(ref api.Ref, r api.DeleteRequest, k api.Idempotency) (api.Operation, error) {
		return s.opts.Actions.Delete(c.ctx(), ref, r, k)
	})
}

func (s *Server) startInstance(c *call) error {
	return act(c, true, nothing, func(ref api.Ref, _ struct{}, k api.Idempotency) (api.Operation, error) {
		return s.opts.Actions.Start(c.ctx(), ref, k)
	})
}

func (s *Server) stopInstance(c *call) error {
	return act(c, true, checkStop, func(ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
		return s.opts.Actions.Stop(c.ctx(), ref, r, k)
	})
}

func (s *Server) restartInstance(c *call) error {
	return act(c, true, checkStop, func(ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error) {
		return s.opts.Actions.Restart(c.ctx(), ref, r, k)
	})
}

func (s *Server) migrate(c *call) error {
	return act(c, false, checkMigrate, func(ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error) {
		return s.opts.Migrations.Migrate(c.ctx(), ref, r, k)
	})
}

func (s *Server) planMigration(c *call) error {
	ref, err := c.ref()
	if err != nil {
		return err
	}
	r, err := decode(c, false, checkMigrate)
	if err != nil {
		return err
	}
	plan, err := s.opts.Migrations.Plan(c.ctx(), ref, r)
	return answer(c, plan, err)
}

// nothing checks a body that has no fields.
func nothing(struct{}) faults { return nil }

// noContent answers 204, or the error.
func noContent(c *call, err error) error {
	if err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
