package http

import (
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
)

func checkFacts(r api.FactsRequest) (f faults) {
	f.project("project", r.Project)
	f.name("name", r.Name)
	f.uuid("uuid", r.UUID)
	f.given("host_uuid", r.HostUUID)
	f.given("domain_xml", r.DomainXML)
	seen := map[string]bool{}
	for i, d := range r.Disks {
		at := fmt.Sprintf("disks[%d].", i)
		f.disk(at+"target", d.Target)
		f.once(at+"target", d.Target, seen)
		f.notNegative(at+"size", d.Size)
		f.pool(at+"pool", d.Pool)
		if d.Probe != nil {
			// It becomes a file's name in a pool's folder.
			f.match(idPattern, at+"probe.name", trimDot(d.Probe.Name), "must be a plain file name")
			f.given(at+"probe.token", d.Probe.Token)
		}
	}
	for i, p := range r.Pools {
		f.name(fmt.Sprintf("pools[%d]", i), p)
	}
	return f
}

// trimDot admits hidden files: a probe should not show up in a pool's listing.
func trimDot(name string) string {
	if len(name) > 1 && name[0] == '.' {
		return name[1:]
	}
	return name
}

func checkIncoming(r api.IncomingRequest) (f faults) {
	f.id("operation", r.Operation)
	f.project("project", r.Project)
	f.name("name", r.Name)
	f.uuid("uuid", r.UUID)
	seen := map[string]bool{}
	for i, d := range r.Disks {
		at := fmt.Sprintf("disks[%d].", i)
		f.disk(at+"target", d.Target)
		f.once(at+"target", d.Target, seen)
		f.given(at+"place.path", d.Place.Path)
		f.pool(at+"place.pool", d.Place.Pool)
		f.notNegative(at+"virtual_size", d.VirtualSize)
		f.notNegative(at+"cluster_size", d.ClusterSize)
	}
	for i, s := range r.Stage {
		at := fmt.Sprintf("stage[%d].", i)
		f.pool(at+"pool", s.Pool)
		if s.SyncFrom != "" {
			f.peer(at+"sync_from", s.SyncFrom)
		}
	}
	for i, t := range r.Targets {
		f.target(fmt.Sprintf("targets[%d].", i), t)
	}
	f.record("record.", r.Record)
	return f
}

func checkCommit(r api.CommitRequest) (f faults) {
	if r.Record != nil {
		f.record("record.", *r.Record)
	}
	return f
}

// record checks the record of an instance. An instance that Wherry did not
// make has none; it then comes without a name.
func (f *faults) record(at string, r api.Record) {
	if r.Name == "" && r.UUID == "" && len(r.Disks) == 0 {
		return
	}
	f.project(at+"project", r.Project)
	f.name(at+"name", r.Name)
	f.uuid(at+"uuid", r.UUID)
	f.given(at+"domain_xml", r.DomainXML)
	seen := map[string]bool{}
	for i, d := range r.Disks {
		field := fmt.Sprintf("%sdisks[%d].target", at, i)
		f.disk(field, d.Target)
		f.once(field, d.Target, seen)
	}
	for i, t := range r.Targets {
		f.target(fmt.Sprintf("%stargets[%d].", at, i), t)
	}
}
