package hook

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/http/api"
)

// WithoutLibvirt disconnects what can be disconnected without libvirt, which
// keeps the passwords of iSCSI logins. One that is left stays owed.
type WithoutLibvirt struct {
	cleanup.Targets
}

// Modify disconnects the targets of the request.
func (w WithoutLibvirt) Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	var errs []error
	for _, t := range r.Targets {
		switch {
		case t.Type == "iscsi" && t.CHAP != nil:
			errs = append(errs, fmt.Errorf("libvirt keeps the login to %s, and is not asked by its own hook", t.IQN))
		case t.Type == "iscsi": // nothing of it is kept
		default:
			_, err := w.Targets.Modify(ctx, api.TargetsRequest{Targets: []api.Target{t}})
			errs = append(errs, err)
		}
	}
	return api.TargetsResponse{}, errors.Join(errs...)
}
