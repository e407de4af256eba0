package incoming

import (
	"context"
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
)

// keepBase notes in the registry that a volume stands on a template of this
// host, under whatever name: the copy is kept as long as the ref is there.
func (s *Service) keepBase(ctx context.Context, r api.IncomingRequest, p api.IncomingPlace, volume string) error {
	id, base := templateOf(p.Chain)
	if id == "" {
		return nil
	}
	ref := api.TemplateRef{Project: r.Project, Instance: r.Name, Disk: p.Target, Volume: volume}
	if err := s.Templates.PutRef(ctx, id, base, ref); err != nil {
		return fmt.Errorf("writing the template ref of disk %q: %w", p.Target, err)
	}
	return nil
}

// templateOf gives the template of this host that a linked clone stands on, and
// the file of its copy. The source may know the same bytes by another name, or
// this host may hold them as a plain file: then there is nothing here that a
// ref could keep.
func templateOf(chain []api.Layer) (id, base string) {
	for _, l := range chain {
		if l.Template != "" {
			id, base = l.Template, l.Path
		}
	}
	return id, base
}

// dropRef forgets the ref of a volume that this host did not keep. It is part
// of taking back, which no cancel may cut short.
func (s *Service) dropRef(volume string) error {
	return s.Templates.DropRef(context.WithoutCancel(s.ctx), volume)
}
