package migrate

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/http/api"
)

// holdDeadline is how long the destination may take to hear that it is to keep
// what it made.
const holdDeadline = 5 * time.Second

// needsDecision ends a migration of which nobody can tell where the instance
// goes on: nothing is undone, the destination is told to keep what it made, and
// whoever decides gets what both hosts say.
func (m *migration) needsDecision(ctx context.Context, why string, err error) error {
	m.op.DropUndo()
	ctx, stop := operation.Detach(ctx)
	defer stop()
	src, dst := m.sides(ctx)
	m.unheard = src.silent()
	if src.Job {
		// It is not known to be paused or to run, and commands would be refused.
		why += "; the migration is still going on at the source"
	}
	hold, cancel := context.WithTimeout(ctx, holdDeadline)
	defer cancel()
	in, herr := m.peer.Settle(hold, m.op.ID(), api.SettleRequest{Act: api.SettleHold, Why: why})
	if herr == nil {
		m.hear(in, nil) // what is held is looked at more closely
	} else if api.CodeOf(herr) != "not-found" {
		m.Log.Warn("the destination was not told to keep what it made; it decides by its lease's end", "operation", m.op.ID(), "error", herr)
	}
	detail := api.NewProblem("needs-decision", "%s", why)
	if err != nil {
		detail = api.NewProblem("needs-decision", "%s; libvirt said: %w", why, err)
	}
	if src.split() || dst.part() {
		return detail.WithHint("%s", m.halvesHint(dst)).WithDecision(m.facts(ctx, src, dst), m.command(KeepSource), m.command(KeepDestination))
	}
	return detail.WithHint("nothing was destroyed. Choose the host on which %q is to go on; both copies are looked at again before anything is done", m.ref.Name).
		WithDecision(m.facts(ctx, src, dst), m.command(KeepSource), m.command(KeepDestination))
}

// halvesHint tells what can be done about a guest that is in two halves. libvirt
// takes a post-copy up again only for whoever asks as for the first.
func (m *migration) halvesHint(dst Side) string {
	if dst.gone() {
		return "nothing was destroyed here, but the destination's half has ended, and what is here cannot go on without it. " +
			"Stop it with force at the source, and keep the source: the disks of both hosts stay, and the guest's last writes may be in the destination's"
	}
	return fmt.Sprintf("nothing was destroyed. Once the hosts reach each other, run at the source: "+
		"virsh migrate --live --p2p --persistent --undefinesource --postcopy --postcopy-resume %s %s, and keep the destination when it runs there. "+
		"To give the guest up, stop it with force at the source and then at the destination, and keep the source: the disks of both hosts stay, and its last writes are in the destination's",
		m.ref.Name, m.state.Facts.LibvirtURI)
}

// command settles the operation. Where it is not enough, its refusal says what
// is missing.
func (m *migration) command(keep Verdict) string {
	return fmt.Sprintf("wherry operation resolve %s --keep %s", m.op.ID(), keep)
}

// facts are what both hosts say, for people.
func (m *migration) facts(ctx context.Context, src, dst Side) []api.SideFacts {
	now := m.Now().UTC()
	source := factsOf(src)
	source.Side, source.SeenAt = api.SideSource, &now
	if src.silent() {
		source.SeenAt = nil
	}
	look, cancel := context.WithTimeout(ctx, sideDeadline)
	defer cancel()
	if h, err := m.Host.Host(look); err == nil {
		source.Host = h.Name
	}
	source.Process = m.process()
	for _, v := range m.state.Sources {
		file := api.SideVolume{Disk: v.Target, Path: v.Owned.Path, Present: v.Owned.Verify() == nil}
		var st unix.Stat_t
		if file.Present && unix.Lstat(v.Owned.Path, &st) == nil {
			file.Allocated = st.Blocks * 512
		}
		source.Volumes = append(source.Volumes, file)
	}
	return []api.SideFacts{source, m.destinationFacts(dst)}
}

func (m *migration) destinationFacts(dst Side) api.SideFacts {
	f := factsOf(dst)
	f.Side, f.Host = api.SideDestination, cmp.Or(m.state.Facts.Host.Name, m.state.Request.Destination)
	m.heardMu.Lock()
	defer m.heardMu.Unlock()
	if !m.heardAt.IsZero() {
		at := m.heardAt.UTC()
		f.SeenAt = &at
		f.Process = m.heard.Process
		if dst.silent() {
			f.Process, f.Detail = "", fmt.Sprintf("when it last answered the instance was %s there", cmp.Or(m.heard.Domain, "absent"))
		}
	}
	for _, p := range m.state.Incoming.Disks {
		v := api.SideVolume{Disk: p.Target, Path: p.Path}
		for _, d := range m.heard.Progress.Disks {
			if d.Target == p.Target {
				v.Present, v.Allocated = true, d.BytesDone
			}
		}
		f.Volumes = append(f.Volumes, v)
	}
	return f
}

func factsOf(s Side) api.SideFacts {
	return api.SideFacts{State: cmp.Or(s.State, "absent"), Reason: s.Reason, Job: s.Job, Sent: s.Sent, Halted: s.Halted}
}

// process says of the instance's QEMU on this host what the wire says.
func (m *migration) process() string {
	if m.Runs == nil {
		return ""
	}
	switch runs, err := m.Runs(m.ref.Name, m.state.UUID); {
	case err != nil:
		return ""
	case runs:
		return "runs"
	}
	return "none"
}

// hear keeps the destination's last answer, and whether it still answers.
func (m *migration) hear(in api.Incoming, err error) {
	m.heardMu.Lock()
	defer m.heardMu.Unlock()
	if m.lost = api.CodeOf(err) == "peer-unreachable"; err == nil {
		m.heard, m.heardAt = in, m.Now()
	}
}

// peerLost tells whether the destination's agent could not be reached when it
// was last asked. One that answers may have a libvirt that does not.
func (m *migration) peerLost() bool {
	m.heardMu.Lock()
	defer m.heardMu.Unlock()
	return m.lost
}
