package http

import (
	_ "embed"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/wherry-kvm/wherry/http/api"
)

//go:embed openapi.yaml
var openAPI []byte

func (s *Server) openAPI(c *call) error {
	return c.bytes(http.StatusOK, "application/yaml", openAPI)
}

func (s *Server) host(c *call) error {
	h, err := s.opts.Hosts.Host(c.ctx())
	return answer(c, h, err)
}

// live tells that the process answers, and no more: a host whose libvirt is
// down must not have its agent restarted.
func (s *Server) live(c *call) error {
	return c.bytes(http.StatusOK, echo.MIMETextPlainCharsetUTF8, []byte("ok\n"))
}

func (s *Server) ready(c *call) error {
	if s.draining.Err() != nil {
		return api.NewProblem("not-ready", "the agent is shutting down")
	}
	if err := s.opts.Ready(c.ctx()); err != nil {
		p := api.AsProblem(err)
		if p.Status != http.StatusServiceUnavailable {
			p = api.NewProblem("not-ready", "%w", err)
		}
		return p
	}
	return c.bytes(http.StatusOK, echo.MIMETextPlainCharsetUTF8, []byte("ready\n"))
}

func (s *Server) metrics(c *call) error {
	if s.opts.Metrics == nil {
		return api.NewProblem("not-found", "this agent has no metrics")
	}
	s.opts.Metrics.ServeHTTP(newDeadlineWriter(c.Response()), c.Request())
	return nil
}
