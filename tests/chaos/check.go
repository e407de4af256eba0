package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/tests/harness"
)

// scene is both hosts after a seed, as they look from outside, with what the agents tell.
type scene struct {
	hosts map[string]facts
	// mounts are those that each host had before.
	mounts map[string][]string
	// templates are the files of each host's template copies; partial: one of them is still on its way.
	templates map[string][]string
	partial   map[string]bool
	stories   map[string]story
	// brought are root disks that a caller has made: a rebuild leaves them.
	brought []string
}

// broken gives every invariant that does not hold.
func (s scene) broken() []string {
	var out []string
	for name, story := range s.stories {
		out = append(out, s.oneCopy(name, story)...)
	}
	for host, f := range s.hosts {
		out = append(out, s.idle(host, f)...)
		if !s.undecided() {
			out = append(out, s.leftover(host, f)...)
		}
	}
	slices.Sort(out)
	return out
}

// undecided: what may go is for a person to say, and nothing has been deleted.
func (s scene) undecided() bool {
	for _, story := range s.stories {
		if story.undecided {
			return true
		}
	}
	return false
}

// oneCopy: an instance is defined once, on the host that its operations tell, and runs where it should and nowhere else.
func (s scene) oneCopy(name string, story story) []string {
	var at []place
	var seen, running []string
	for _, host := range []string{"a", "b"} {
		d := s.hosts[host].domains[name]
		if d == nil {
			continue
		}
		at = append(at, place{host, d.state == "running"})
		seen = append(seen, fmt.Sprintf("%s on host %s (%s)", d.state, host, d.reason))
		if d.state == "running" {
			running = append(running, host)
		}
	}
	what := strings.Join(seen, ", ")
	switch {
	case len(at) == 0:
		return []string{fmt.Sprintf("%s is lost: no host has it", name)}
	case len(running) > 1:
		return []string{fmt.Sprintf("%s runs twice: %s", name, what)}
	case story.undecided:
		return nil
	case len(at) > 1:
		return []string{fmt.Sprintf("%s is there twice: %s", name, what)}
	case !slices.Contains(story.places, at[0]):
		return []string{fmt.Sprintf("%s is %s; its operations say %v", name, what, story.places)}
	case !at[0].running && s.hosts[at[0].host].domains[name].state != "shut off":
		return []string{fmt.Sprintf("%s is %s; want it to run or to be off", name, what)}
	}
	return nil
}

// idle: no job, process or tool goes on that nobody waits for.
func (s scene) idle(host string, f facts) []string {
	var out, active []string
	for name, d := range f.domains {
		if d.active() {
			active = append(active, name)
		}
		for _, job := range d.busy {
			out = append(out, fmt.Sprintf("host %s: %s has left of a migration: %s", host, name, job))
		}
	}
	slices.Sort(active)
	if !slices.Equal(active, f.qemu) {
		out = append(out, fmt.Sprintf("host %s: QEMU runs %q, libvirt knows of %q", host, f.qemu, active))
	}
	for _, tool := range f.tools {
		out = append(out, fmt.Sprintf("host %s: a tool runs on: %s", host, tool))
	}
	return out
}

// leftover: every file belongs to an instance of the host or to a template, every disk has its file, and there is no
// record, note, secret or mount of what is not here.
func (s scene) leftover(host string, f facts) []string {
	var out, owned []string
	for name, d := range f.domains {
		for _, source := range d.sources {
			if !slices.Contains(f.files, source) {
				out = append(out, fmt.Sprintf("host %s: %s has no file for its disk %s", host, name, source))
			}
		}
		owned = append(owned, d.sources...)
	}
	// The other host's are seen here as well where the folder is shared.
	for _, d := range s.hosts[opposite(host)].domains {
		for _, source := range d.sources {
			if strings.HasPrefix(source, harness.SharedPath+"/") {
				owned = append(owned, source)
			}
		}
	}
	owned = slices.Concat(owned, s.templates[host], s.brought)
	for _, file := range f.files {
		growing := s.partial[host] && strings.Contains(file, ".wherry-template-")
		if !slices.Contains(owned, file) && !growing {
			out = append(out, fmt.Sprintf("host %s: left behind: %s", host, file))
		}
	}
	for _, name := range f.records {
		if f.domains[name] == nil {
			out = append(out, fmt.Sprintf("host %s: a record of %s, which is not here", host, name))
		}
	}
	for _, note := range f.notes {
		out = append(out, fmt.Sprintf("host %s: still owed: %s", host, note))
	}
	for _, secret := range f.secrets {
		out = append(out, fmt.Sprintf("host %s: secret %s", host, secret))
	}
	if !slices.Equal(f.mounts, s.mounts[host]) {
		out = append(out, fmt.Sprintf("host %s: mounts %q; there were %q", host, f.mounts, s.mounts[host]))
	}
	return out
}

// Slack is what comes and goes in an agent that has nothing to do: a connection that somebody keeps for the next request
// is a file and two goroutines, here and there.
const (
	slackGoroutines = 12
	slackFiles      = 6
	// idleHandles are the connections to libvirt that an agent keeps: one for calls, one that is listened on, and one each
	// for counters and for looks at what goes on. It holds no other object of libvirt when nothing goes on.
	idleHandles = 4
)

// healthy says what an agent has too much of, compared with when it first had nothing to do.
func healthy(host string, first, now vitals) []string {
	var out []string
	if now.handles > idleHandles {
		out = append(out, fmt.Sprintf("host %s: the agent holds %d objects of libvirt; want no more than %d connections", host, now.handles, idleHandles))
	}
	if now.clients > idleHandles {
		out = append(out, fmt.Sprintf("host %s: libvirt has %d connections; want those of the agent", host, now.clients))
	}
	if now.since != first.since {
		return out
	}
	if now.goroutines > first.goroutines+slackGoroutines {
		out = append(out, fmt.Sprintf("host %s: the agent has %d goroutines, there were %d", host, now.goroutines, first.goroutines))
	}
	if now.files > first.files+slackFiles {
		out = append(out, fmt.Sprintf("host %s: the agent has %d open files, there were %d", host, now.files, first.files))
	}
	return out
}
