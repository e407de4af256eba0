package instance

import (
	"context"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// codeLost is that of the reasons which name a lost template.
const codeLost = "template-lost"

// sound refuses what would start on a template's copy that is lost or has
// changed. Of one that is gone libvirt names a path at best, and on one with
// other bytes the guest would start, and write to a disk that is none any more.
//
// It does not wait for the repair, which may take as long as a download: the
// problem says when it is tried next.
func (s *Service) sound(ctx context.Context, ref api.Ref, d hypervisor.Domain) error {
	chains, err := s.Chains.Next(ctx, d)
	if err != nil {
		// What cannot be known must not keep an instance down.
		s.Log.Warn("what an instance stands on is not known", "instance", ref.String(), "error", err)
	}
	var reasons []api.Reason
	var details []string
	for _, u := range chains.Uses {
		for _, f := range u.Layers {
			if why, lost := s.Templates.Lost(f.Path); lost {
				r := api.Reason{Code: codeLost, Disk: u.Disk, Detail: "disk " + u.Disk + " stands on " + why}
				reasons, details = append(reasons, r), append(details, r.Detail)
			}
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return api.NewProblem("precondition", "%q is not started: %s", ref, strings.Join(details, "; ")).WithReasons(reasons).
		WithHint("it can be started when `wherry template list` shows the copy ready; `wherry template retry` has it brought at once")
}
