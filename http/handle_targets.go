package http

import (
	"encoding/json"

	"github.com/wherry-kvm/wherry/http/api"
)

func (s *Server) modifyTargets(c *call) error {
	r, err := decode(c, false, checkTargets)
	if err != nil {
		return err
	}
	if err := saysAdd(c.body); err != nil {
		return err
	}
	out, err := s.opts.Targets.Modify(c.ctx(), r)
	return answer(c, out, err)
}

// saysAdd refuses a request that leaves "add" out: as false it would
// disconnect storage that nobody asked to disconnect.
func saysAdd(body []byte) error {
	var said struct {
		Add *bool `json:"add"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return api.NewProblem("bad-request", "%w", err)
	}
	var f faults
	if said.Add == nil {
		f.add("add", "is missing")
	}
	return f.problem()
}
