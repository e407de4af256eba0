package http

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
)

func (s *Server) listLeftovers(c *call) error {
	list, err := s.opts.Leftovers.List(c.ctx())
	return answer(c, list, err)
}

func (s *Server) deleteLeftovers(c *call) error {
	r, err := decode(c, false, checkLeftovers)
	if err != nil {
		return err
	}
	out, err := s.opts.Leftovers.Delete(c.ctx(), r.Paths)
	return answer(c, out, err)
}

// maxLeftovers bounds what one request names.
const maxLeftovers = 1000

// named are the kinds whose ids are no paths.
var named = []string{api.LeftoverCopy, api.LeftoverSecret, api.LeftoverJob, api.LeftoverExport, api.LeftoverNode}

func checkLeftovers(r api.LeftoversDelete) (f faults) {
	if len(r.Paths) == 0 || len(r.Paths) > maxLeftovers {
		f.add("paths", "must name between 1 and %d leftovers", maxLeftovers)
	}
	for i, p := range r.Paths {
		if kind, name, ok := strings.Cut(p, ":"); ok && name != "" && slices.Contains(named, kind) {
			continue
		}
		if !filepath.IsAbs(p) || filepath.Clean(p) != p {
			f.add(fmt.Sprintf("paths[%d]", i), "must be an id, or a whole path, as it was listed")
		}
	}
	return f
}
