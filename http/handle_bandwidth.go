package http

import "github.com/wherry-kvm/wherry/http/api"

func (s *Server) bandwidth(c *call) error {
	b, err := s.opts.Hosts.Bandwidth(c.ctx())
	return answer(c, b, err)
}

func (s *Server) setBandwidth(c *call) error {
	r, err := decode(c, false, checkBandwidth)
	if err != nil {
		return err
	}
	b, err := s.opts.Hosts.SetBandwidth(c.ctx(), *r.Bandwidth, c.caller())
	return answer(c, b, err)
}

func (s *Server) resetBandwidth(c *call) error {
	if err := noBody(c); err != nil {
		return err
	}
	b, err := s.opts.Hosts.ResetBandwidth(c.ctx())
	return answer(c, b, err)
}

// caller names who asks, as the log does.
func (c *call) caller() string {
	name, _ := c.Get(keyCaller).(string)
	return name
}

func checkBandwidth(r api.BandwidthRequest) (f faults) {
	if r.Bandwidth == nil {
		f.add("bandwidth", "needed; 0 for no limit")
		return f
	}
	f.notNegative("bandwidth", *r.Bandwidth)
	return f
}
