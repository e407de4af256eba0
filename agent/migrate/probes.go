package migrate

import (
	"log/slog"
	"path/filepath"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// probes are files that this host writes beside its disks for as long as the
// destination looks: one for each folder.
type probes struct {
	log     *slog.Logger
	byDir   map[string]*api.Probe
	cleanup []func() error
	op      *operation.Op // whose journal has them; nil for a plan alone
	noted   []notedProbe
}

// noteProbes is the name of the probes among the operation's data.
const noteProbes = "probes"

// notedProbe is written down before the file is there.
type notedProbe struct {
	Dir   string       `json:"dir"`
	Probe volume.Probe `json:"probe"`
}

func newProbes(log *slog.Logger, op *operation.Op) *probes {
	return &probes{log: log, op: op, byDir: map[string]*api.Probe{}}
}

// dropProbes removes the probes that a lost run of the agent has left.
func (s *Service) dropProbes(op *operation.Op) {
	var noted []notedProbe
	if _, err := op.Load(noteProbes, &noted); err != nil {
		s.Log.Warn("reading which probe files there were", "operation", op.ID(), "error", err)
	}
	for _, n := range noted {
		if err := n.Probe.Remove(n.Dir); err != nil {
			s.Log.Warn("a probe file remains", "operation", op.ID(), "error", err)
		}
	}
}

func (p *probes) write(dir string) (volume.Probe, error) {
	fresh := volume.NewProbe()
	if p.op != nil {
		p.noted = append(p.noted, notedProbe{dir, fresh})
		if err := p.op.Save(noteProbes, p.noted); err != nil {
			return fresh, err
		}
	}
	remove, err := fresh.Write(dir)
	if err == nil {
		p.cleanup = append(p.cleanup, remove)
	}
	return fresh, err
}

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
	written, err := p.write(dir)
	if err != nil {
		p.log.Warn("no probe file could be written", "folder", dir, "error", err)
		p.byDir[dir] = nil
		return nil
	}
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
