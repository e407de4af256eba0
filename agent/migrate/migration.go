package migrate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

// migration is one move of one instance.
type migration struct {
	*Service
	ref   api.Ref
	peer  Peer
	op    *operation.Op
	host  api.Host
	inst  inspect.Instance
	in    Input
	state state

	// unreachable: the destination did not answer when something was to be taken back.
	unreachable error
	// unheard: this host's libvirt did not say how it is when a person had to decide.
	unheard bool
	// id is the operation's while op is not known.
	id string
	// heard is the destination's last answer, and when it came; lost: it was
	// asked again since, and could not be reached.
	heardMu sync.Mutex
	lost    bool
	heard   api.Incoming
	heardAt time.Time
}

// state is what the journal keeps of a migration, enough to finish it or to
// take it back after a crash.
type state struct {
	Request    api.MigrateRequest `json:"request"`
	UUID       string             `json:"uuid"`
	Plan       api.Plan           `json:"plan"`
	Facts      api.Facts          `json:"facts"` // without the disks' layers
	Connected  []api.Target       `json:"connected,omitempty"`
	Connecting bool               `json:"connecting,omitempty"`
	Reserved   bool               `json:"reserved,omitempty"`
	Incoming   api.Incoming       `json:"incoming"`
	Performing bool               `json:"performing,omitempty"`
	// Began: when libvirt was asked, from which the timeout counts.
	Began     time.Time `json:"began,omitzero"`
	Moved     bool      `json:"moved,omitempty"`
	Committed bool      `json:"committed,omitempty"`
	// SentBefore is the mark of a handover in an earlier migration, after which it
	// went on here; "" = none.
	SentBefore string `json:"sent_before,omitempty"`
	// Ran: it ran when libvirt was asked, and libvirt starts it again here where
	// the migration fails.
	Ran bool `json:"ran,omitempty"`
	// Barred: a guard has kept libvirt from doing that.
	Barred bool `json:"barred,omitempty"`
	// Held: from the handover on.
	Held bool `json:"held,omitempty"`
	// Halted: the agent paused the copy that libvirt had started again here.
	Halted bool `json:"halted,omitempty"`
	// Unconfirmed: it was stated, not seen, that the destination has it.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	// Leftover: libvirt has left a copy here that does not run.
	Leftover bool `json:"leftover,omitempty"`
	// Remains: that copy could not be removed at the end.
	Remains bool `json:"remains,omitempty"`
	// Sources are the volumes that are removed once the destination confirms.
	Sources  []sourceVolume           `json:"sources,omitempty"`
	Targets  []api.Target             `json:"targets,omitempty"` // of this host, released at the end
	Phases   map[string]time.Duration `json:"phases"`
	Disk     int64                    `json:"disk"`
	Memory   int64                    `json:"memory"`
	Warnings []string                 `json:"warnings,omitempty"`
}

// journal is how far the migration has come.
func (s state) journal() Journal {
	switch {
	case s.Committed:
		return Committed
	case s.Moved:
		return Moved
	case s.Performing:
		return Performing
	case s.Reserved || s.Connecting:
		return Prepared
	}
	return Untouched
}

// sourceVolume is a file of this host that the migration replaces.
type sourceVolume struct {
	Target string       `json:"target"`
	Pool   string       `json:"pool"`
	Owned  volume.Owned `json:"owned"`
}

// ErrNoIdentity says that this agent has nothing to show to a peer.
var ErrNoIdentity = errors.New("this agent has no certificate for peers")

func (s *Service) newMigration(ref api.Ref, r api.MigrateRequest) (*migration, error) {
	peer, err := s.Dial(r.Destination)
	if err != nil {
		if errors.Is(err, ErrNoIdentity) {
			return nil, api.NewProblem("precondition", "%w", err).WithHint("set tls.ca, tls.cert and tls.key in this agent's configuration, and restart it")
		}
		return nil, api.NewProblem("bad-request", "%w", err).WithField("destination", err.Error())
	}
	return &migration{Service: s, ref: ref, peer: peer,
		state: state{Request: r, Phases: map[string]time.Duration{}}}, nil
}

// inspect finds out what the instance stands on.
func (m *migration) inspect(ctx context.Context) error {
	var err error
	if m.host, err = m.Host.Host(ctx); err != nil {
		return err
	}
	if m.inst, err = m.Inspector.Inspect(ctx, m.ref, m.host.Pools); err != nil {
		return err
	}
	if !m.inst.Domain.Active() || m.inst.Domain.Incoming {
		return api.NewProblem("precondition", "%q is %s: only a running instance can be moved live", m.ref, m.inst.Domain.State).
			WithHint("start it first")
	}
	m.state.UUID = m.inst.Domain.UUID
	m.in = Input{Request: m.state.Request, Instance: Instance{Ref: m.ref, UUID: m.inst.Domain.UUID, HostUUID: m.host.UUID,
		Blockers: append(append([]string{}, m.inst.Parsed.HostDevices...), m.inst.Parsed.OtherBlockers...)}}
	if m.inst.Domain.Snapshots > 0 {
		if m.in.Instance.Snapshots, err = m.Hypervisor.Snapshots(ctx, m.ref.Name); err != nil {
			return inspect.Problem(m.ref, err)
		}
	}
	for _, d := range m.inst.Disks {
		disk, err := m.disk(ctx, d)
		if err != nil {
			return err
		}
		m.in.Instance.Disks = append(m.in.Instance.Disks, disk)
	}
	return nil
}

// disk adds what only the plan needs: digests of the frozen layers, and which
// of them could be staged.
func (m *migration) disk(ctx context.Context, d inspect.Disk) (Disk, error) {
	out := Disk{Disk: d.Disk, ClusterSize: d.ClusterSize, Compat: d.Compat, ExtendedL2: d.ExtendedL2,
		Endpoint: d.Endpoint, Issues: d.Issues, RefMissing: m.Inspector.RefMissing(d, m.inst.Record), Stageable: map[string]string{}}
	if x, ok := m.inst.Parsed.Disk(d.Target); ok {
		out.Shareable = x.Shareable
	}
	for _, p := range m.host.Pools {
		if p.Name == d.Pool && d.Pool != "" {
			out.PoolIdentity = p.Identity
		}
	}
	if out.Media() {
		if out.Kind == "file" && !out.Empty() {
			out.MediaDigest, _ = m.digest(ctx, out.Path) // an unreadable one is looked for by name
		}
		return out, context.Cause(ctx)
	}
	for i := 1; i < len(out.Chain); i++ {
		l := &out.Chain[i]
		digest, err := m.digest(ctx, l.Path)
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		if err != nil {
			out.Issues = append(out.Issues, api.Reason{Code: "chain-unsafe", Detail: fmt.Sprintf("backing layer %s cannot be read: %v", l.Path, err)})
			continue
		}
		l.Digest = digest
		if l.Template != "" {
			if t, ok := m.Templates.Record(l.Template); ok && t.RemovedAt == nil {
				out.Stageable[l.Path] = l.Template
			}
		}
	}
	return out, nil
}

// digest gives "" for what is no file of this host, a block device or a network
// image: QEMU reads it, so it can be copied, but is never taken for the same as
// another.
func (m *migration) digest(ctx context.Context, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", nil
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	digest, err := m.Digester.Digest(ctx, resolved)
	if errors.Is(err, volume.ErrFileType) {
		return "", nil
	}
	return digest, err
}

// offer asks the destination, once, what it would take. Probe files stand
// beside the disks while it looks.
func (m *migration) offer(ctx context.Context) error {
	// The live XML: libvirt has filled in the CPU that the guest really sees.
	r := api.FactsRequest{Project: m.ref.Project, Name: m.ref.Name, UUID: m.in.Instance.UUID, HostUUID: m.host.UUID, DomainXML: m.inst.XML,
		Disks: []api.FactsDisk{}, MediaDigests: map[string]string{}}
	probes := newProbes(m.Log, m.op)
	defer probes.remove()
	for _, d := range m.in.Instance.Disks {
		switch {
		case d.Empty():
		case d.Media():
			r.Media = append(r.Media, d.Path)
			if d.MediaDigest != "" {
				r.MediaDigests[d.Path] = d.MediaDigest
			}
		default:
			r.Disks = append(r.Disks, api.FactsDisk{Target: d.Target, Pool: d.Pool, Path: d.Path, Kind: d.Kind, Size: d.Size,
				Chain: d.Chain, Probe: probes.beside(d)})
		}
	}
	facts, err := m.peer.Facts(ctx, r)
	if err != nil {
		return peerProblem(err, m.state.Request.Destination)
	}
	m.in.Destination = facts
	m.state.Facts = facts
	m.state.Facts.Disks = nil
	return nil
}

// decide makes the plan, or refuses with every reason.
func (m *migration) decide(context.Context) error {
	plan, refusals := Decide(m.in)
	m.state.Plan = plan
	if len(refusals) == 0 {
		return nil
	}
	detail := refusals[0].Detail
	if len(refusals) > 1 {
		detail = fmt.Sprintf("%s (and %d more reasons)", detail, len(refusals)-1)
	}
	p := api.NewProblem("refused", "%s", detail).WithReasons(refusals).
		WithHint("nothing was touched; see the reasons")
	if len(refusals) == 1 {
		p.Disk = refusals[0].Disk
	}
	return p
}

// peerProblem keeps the peer's own words and adds who said them.
func peerProblem(err error, peer string) error {
	var p *api.Problem
	if !errors.As(err, &p) {
		return api.NewProblem("peer-failed", "%s: %w", peer, err)
	}
	if p.Code == "peer-unreachable" && p.Hint == "" {
		p.Hint = fmt.Sprintf("check that the agent runs at %s and that both hosts trust the same CA", peer)
	}
	if p.Code == "libvirt-down" {
		p.Hint = fmt.Sprintf("see `systemctl status libvirtd` on the host of %s; its agent connects by itself", peer)
	}
	return err
}

// rewrites says, for each disk of the plan, how it looks at the destination.
func (m *migration) rewrites() []domainxml.DiskRewrite {
	var out []domainxml.DiskRewrite
	for _, d := range m.state.Plan.Disks {
		if d.Destination == nil {
			continue
		}
		place := *d.Destination
		for _, p := range m.state.Incoming.Disks {
			if p.Target == d.Target {
				place.Path, place.Format, place.Chain = p.Path, p.Format, p.Chain
			}
		}
		if d.Action == api.ActionSkip && place.Path == d.Source.Path {
			continue
		}
		w := domainxml.DiskRewrite{OldSource: d.Source.Path, Target: d.Target, Type: place.Kind, Source: place.Path, Format: place.Format}
		if d.Action == api.ActionCopy && place.Kind == "network" {
			w.Auth = m.login(d)
		}
		for _, l := range place.Chain {
			w.Backing = append(w.Backing, domainxml.BackingLayer{Path: l.Path, Format: l.Format, Type: "file"})
		}
		out = append(out, w)
	}
	return out
}
