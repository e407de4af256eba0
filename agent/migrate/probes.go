package migrate

import (
	"log/slog"
	"path/filepath"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// probes are files that this host writes beside its disks for as long as the
// destination looks: one for each folder.
type probes struct {
	log     *slog.Logger
	byDir   map[string]*api.Probe
	cleanup []func() error
}

func newProbes(log *slog.Logger) *probes { return &probes{log: log, byDir: map[string]*api.Probe{}} }

// beside writes a probe into the disk's folder. A folder that takes none is
// not known to be shared; its disks are copied, onto a name that must be free.
func (p *probes) beside(d Disk) *api.Probe {
	if d.Kind != "file" {
		return nil
	}
	dir := filepath.Dir(d.Path)
	if probe, ok := p.byDir[dir]; ok {
		return probe
	}
	written, remove, err := volume.WriteProbe(dir)
	if err != nil {
		p.log.Warn("no probe file could be written", "folder", dir, "error", err)
		p.byDir[dir] = nil
		return nil
	}
	p.cleanup = append(p.cleanup, remove)
	p.byDir[dir] = &api.Probe{Name: written.Name, Token: written.Token}
	return p.byDir[dir]
}

func (p *probes) remove() {
	for _, remove := range p.cleanup {
		if err := remove(); err != nil {
			p.log.Warn("a probe file remains", "error", err)
		}
	}
}
