package boot

import (
	"cmp"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Facts are all that the decision depends on.
type Facts struct {
	// Rebooted: the host was down since the agent ran last.
	Rebooted bool
	// Marker is the note of a shutdown; nil = none.
	Marker  *shutdown.Marker
	Records []api.Record
	Domains []hypervisor.Domain
	// Stopped are those, by their UUID, that an operator's stop has ended or was
	// about to: their records may not say so yet.
	Stopped map[string]bool
}

// Again is one instance that is to be started.
type Again struct {
	Project  string `json:"project"`
	Name     string `json:"name"`
	UUID     string `json:"uuid"`
	Priority int    `json:"priority"`
}

// Ref names it.
func (a Again) Ref() api.Ref { return api.Ref{Project: a.Project, Name: a.Name} }

// Decide gives what is to be started, the lowest stop priority first, since
// what was stopped first stands on what was stopped last.
func Decide(f Facts) (out []Again) {
	if !f.Rebooted && f.Marker == nil {
		return nil
	}
	records := map[string]api.Record{}
	for _, r := range f.Records {
		records[r.UUID] = r
	}
	found, not := map[string]Again{}, map[string]bool{}
	if f.Marker != nil {
		for _, ran := range f.Marker.Ran {
			not[ran.UUID] = ran.Stopping
			// A record says what became of it since: somebody may have stopped it. One
			// of another name knows nothing of it: it was renamed by hand.
			if r, ok := records[ran.UUID]; !ran.Stopping && (!ok || r.Name != ran.Name || r.PowerState == "running") {
				found[ran.UUID] = Again{Project: ran.Project, Name: ran.Name, UUID: ran.UUID, Priority: ran.Priority}
			}
		}
	}
	if f.Rebooted {
		for _, r := range f.Records {
			if _, known := found[r.UUID]; !known && r.PowerState == "running" {
				found[r.UUID] = of(r)
			}
		}
	}
	for uuid, a := range found {
		if !f.Stopped[uuid] && !not[uuid] && startable(f.Domains, a.Name, uuid) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, order)
	return out
}

func order(a, b Again) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Project, b.Project), strings.Compare(a.Name, b.Name))
}

// groups gives those of one priority together.
func groups(all []Entry) (out [][]Entry) {
	for i, e := range all {
		if i == 0 || all[i-1].Priority != e.Priority {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], e)
	}
	return out
}

// merge adds what was found to what is owed already, and leaves out what runs
// or is no more. In another run of the kernel each has all its attempts again.
func merge(owed []Entry, found []Again, domains []hypervisor.Domain, now Entry) (out []Entry) {
	for _, e := range owed {
		if !startable(domains, e.Name, e.UUID) {
			continue
		}
		if e.BootID != now.BootID {
			e = Entry{Again: e.Again, BootID: now.BootID, Noted: now.Noted, Since: now.Since}
		}
		out = append(out, e)
	}
	for _, a := range found {
		if !slices.ContainsFunc(out, func(e Entry) bool { return e.UUID == a.UUID }) {
			out = append(out, Entry{Again: a, BootID: now.BootID, Noted: now.Noted, Since: now.Since})
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return order(a.Again, b.Again) })
	return out
}

func of(r api.Record) Again {
	a := Again{Project: cmp.Or(r.Project, api.DefaultProject), Name: r.Name, UUID: r.UUID}
	if r.Stop != nil {
		a.Priority = r.Stop.Priority
	}
	return a
}

// startable: libvirt has it still, it is the same one, and nobody has started
// it.
func startable(domains []hypervisor.Domain, name, uuid string) bool {
	return slices.ContainsFunc(domains, func(d hypervisor.Domain) bool {
		return d.Name == name && d.UUID == uuid && !d.Active()
	})
}
