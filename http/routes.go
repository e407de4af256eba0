package http

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// route is one row of the interface.
type route struct {
	method string
	path   string
	serve  func(*call) error
	peer   bool     // a peer may call it too
	query  []string // the parameters it knows; others are refused
}

// routes lists everything that the socket and the TCP listener answer.
func (s *Server) routes() []route {
	const (
		get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
		instance       = "/v1/instances/:name"
		operation      = "/v1/operations/:id"
		template       = "/v1/templates/:id"
		incoming       = "/v1/incoming/:id"
	)
	project := []string{"project"}
	return append(s.probeRoutes(),
		route{get, "/v1/openapi.yaml", s.openAPI, false, nil},
		route{get, "/v1/host", s.host, false, nil},
		route{get, "/v1/host/bandwidth", s.bandwidth, false, nil},
		route{http.MethodPut, "/v1/host/bandwidth", s.setBandwidth, false, nil},
		route{del, "/v1/host/bandwidth", s.resetBandwidth, false, nil},
		route{get, "/v1/host/shutdown", s.shutdownStatus, false, nil},
		route{post, "/v1/host/shutdown", s.shutdown, false, nil},
		route{post, "/v1/host/hook", s.hook, false, nil},

		route{get, "/v1/instances", s.listInstances, false, project},
		route{post, "/v1/instances", s.createInstance, false, project},
		route{get, instance, s.getInstance, false, project},
		route{del, instance, s.deleteInstance, false, project},
		route{get, instance + "/disks", s.listDisks, false, project},
		route{http.MethodPut, instance + "/stop-policy", s.setStopPolicy, false, project},
		route{post, instance + "/start", s.startInstance, false, project},
		route{post, instance + "/stop", s.stopInstance, false, project},
		route{post, instance + "/restart", s.restartInstance, false, project},
		route{post, instance + "/rebuild/plan", s.planRebuild, false, project},
		route{post, instance + "/rebuild", s.rebuild, false, project},
		route{post, instance + "/migrate/plan", s.planMigration, false, project},
		route{post, instance + "/migrate", s.migrate, false, project},

		route{get, "/v1/operations", s.listOperations, false, []string{"project", "instance", "status"}},
		route{get, operation, s.getOperation, false, []string{"wait"}},
		route{del, operation, s.cancelOperation, false, nil},
		route{post, operation + "/resolve", s.resolveOperation, false, nil},
		route{get, "/v1/events", s.events, false, nil},

		route{get, "/v1/templates", s.listTemplates, false, nil},
		route{post, "/v1/templates", s.registerTemplate, false, nil},
		route{get, template, s.getTemplate, false, nil},
		route{del, template, s.removeTemplate, false, nil},
		route{post, template + "/retry", s.retryTemplate, false, nil},
		route{post, template + "/scrub", s.scrubTemplate, false, nil},
		route{get, template + "/content", s.templateContent, true, nil},
		route{http.MethodHead, template + "/content", s.templateContent, true, nil},

		route{get, "/v1/leftovers", s.listLeftovers, false, nil},
		route{del, "/v1/leftovers", s.deleteLeftovers, false, nil},

		route{post, "/v1/targets", s.modifyTargets, true, nil},

		route{post, "/v1/incoming/facts", s.incomingFacts, true, nil},
		route{post, "/v1/incoming", s.reserveIncoming, true, nil},
		route{get, incoming, s.getIncoming, true, nil},
		route{del, incoming, s.removeIncoming, true, nil},
		route{post, incoming + "/renew", s.renewIncoming, true, nil},
		route{post, incoming + "/commit", s.commitIncoming, true, nil},
		route{post, incoming + "/settle", s.settleIncoming, true, nil},
	)
}

// probeRoutes lists what the listener for metrics answers, and the others too.
func (s *Server) probeRoutes() []route {
	return []route{
		{http.MethodGet, "/livez", s.live, false, nil},
		{http.MethodGet, "/readyz", s.ready, false, nil},
		{http.MethodGet, "/metrics", s.metrics, false, nil},
	}
}

// handler wraps a route: role, query and body are judged before it runs.
func (s *Server) handler(r route) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Set(keyRoute, r.path)
		if err := s.authorise(c, r); err != nil {
			return err
		}
		if err := knownQuery(c.QueryParams(), r.query); err != nil {
			return err
		}
		body, err := readBody(c)
		if err != nil {
			return err
		}
		return r.serve(&call{Context: c, body: body})
	}
}
