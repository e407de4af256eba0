// Package schedule draws what one run of the chaos driver does: which instances there are, what is asked of them, and
// what breaks when. All of it follows from a seed and is known before anything begins, so that it can be printed, judged
// and done again. Nothing here touches a host.
package schedule

import (
	"fmt"
	"strings"
)

// Schedule is all that one seed does. After the last act whatever is still broken is put right.
type Schedule struct {
	Seed      uint64
	Link      string // what each host may send, as tc writes it
	Instances []Instance
	Acts      []Act
}

// Instance is a guest that runs before the first act.
type Instance struct {
	Name  string // short, of this schedule only: "i1"
	Host  string // "a" or "b"
	Pool  string // of every disk that is not on shared storage
	Maker Maker
	Disks []Disk
}

// Written is a disk that the guest writes to, with the name that the guest has for it.
type Written struct {
	Disk
	Guest string
}

// Written are the disks that the guest writes to. It names them in their order, whatever the target is.
func (i Instance) Written() []Written {
	var out []Written
	for _, d := range i.Disks {
		if d.Stands != CDROM {
			out = append(out, Written{d, fmt.Sprintf("vd%c", 'a'+len(out))})
		}
	}
	return out
}

// Maker says who makes an instance.
type Maker string

// Makers.
const (
	ByAgent Maker = "agent" // from a template: the agent makes the root disk
	ByXML   Maker = "xml"   // the agent is given domain XML that names the disks
	ByVirsh Maker = "virsh" // past the agent, which has no record of it
)

// Pools that disks lie in. The small one is a file system of its own, which can be filled.
const (
	DefaultPool = "default"
	SmallPool   = "chaos"
)

// Disk is one disk of an instance.
type Disk struct {
	Target string // "vda"
	Format string // "qcow2" or "raw"
	Stands Stands
}

// Stands says what a disk stands on, or why it does not move.
type Stands string

// What a disk stands on.
const (
	Alone  Stands = "alone"  // nothing below, data of its own
	Full   Stands = "full"   // nothing below: a template's bytes, copied
	Linked Stands = "linked" // a template that both hosts have
	Direct Stands = "direct" // a template that both hosts have downloaded directly
	Lone   Stands = "lone"   // a template that only the host has where it begins
	Shared Stands = "shared" // it lies in the folder that both hosts share
	CDROM  Stands = "cdrom"  // an empty drive
)

// layered tells whether the active layer stands on another one.
func (s Stands) layered() bool { return s == Linked || s == Direct || s == Lone }

// Action is a kind of act.
type Action string

// Actions. Requests begin an operation under the act's label.
const (
	Migrate Action = "migrate" // Option: "auto", "full", "linked" or "stage"
	Stop    Action = "stop"    // Option: "ask" or "force"
	Start   Action = "start"
	Rebuild Action = "rebuild"
	Cancel  Action = "cancel" // the operation Of

	KillAgent    Action = "kill agent"
	StartAgent   Action = "start agent"
	KillLibvirt  Action = "kill libvirt"
	StartLibvirt Action = "start libvirt"
	Cut          Action = "cut"  // the link: packets vanish
	Join         Action = "join" // the link
	Slow         Action = "slow" // the link, to Option
	Fill         Action = "fill" // the small pool at the destination of the operation Of
	Free         Action = "free" // what was filled

	KillQEMU Action = "kill qemu" // the guest's of the migration Of; Option: "source" or "destination"
	Lose     Action = "lose"      // the connection of both libvirts, at the handover of the migration Of
)

// Actions are all there are.
var Actions = []Action{Migrate, Stop, Start, Rebuild, Cancel, KillAgent, StartAgent, KillLibvirt, StartLibvirt, Cut, Join, Slow, Fill, Free, KillQEMU, Lose}

// mends is what puts right what an action breaks.
var mends = map[Action]Action{KillAgent: StartAgent, KillLibvirt: StartLibvirt, Cut: Join, Fill: Free}

// Request tells whether the action begins an operation.
func (a Action) Request() bool {
	switch a {
	case Migrate, Stop, Start, Rebuild:
		return true
	}
	return false
}

// Act is something that is asked for, or breaks, or is put right.
type Act struct {
	Do       Action
	Label    string // of a request: what its operation is called in this schedule, "m1"
	Instance string // of a request
	Host     string // "a" or "b", of what befalls a host
	Of       string // label of the operation that a cancel or fill is about
	Option   string
	When     Trigger
}

// Trigger is what an act waits for. It is a condition and no time, so that a busy machine does the same as an idle one.
// One that cannot come any more, or does not for too long, is let go: the act is done then.
type Trigger struct {
	Moment Moment
	Of     string // label of an operation, or an instance
	N      int    // of percent and of blocks
}

// Moment is a kind of trigger.
type Moment string

// Moments. The last ones are seen from outside, with no agent to ask. The two of the handover last until what waits for
// them is done.
const (
	Begun   Moment = "begun"   // the operation is journalled
	Connect Moment = "connect" // the migration's phase of that name, or a later one
	Prepare Moment = "prepare"
	Perform Moment = "perform"
	Commit  Moment = "commit"
	Clean   Moment = "clean"
	Percent Moment = "percent" // so much of the migration's bytes moved
	Memory  Moment = "memory"  // disks have been copied, memory moves
	Ended   Moment = "ended"

	AtOnce   Moment = "at once"
	Blocks   Moment = "blocks"   // the instance's guest wrote N more, wherever
	Handover Moment = "handover" // all has moved, and nobody has told the destination yet that it may start the guest
	Started  Moment = "started"  // the destination has started the guest, and the source has not heard of it yet
	Moved    Moment = "moved"    // the instance's guest writes on the host where it did not
)

// Moments are all there are.
var Moments = []Moment{Begun, Connect, Prepare, Perform, Commit, Clean, Percent, Memory, Ended, AtOnce, Blocks, Handover, Started, Moved}

// Outside tells whether the moment is seen without an agent.
func (m Moment) Outside() bool { return m == AtOnce || m == Blocks || m == Moved || m.Held() }

// Held tells whether the moment lasts for as long as somebody wants it to.
func (m Moment) Held() bool { return m == Handover || m == Started }

// String is the trigger in a few words.
func (t Trigger) String() string {
	switch t.Moment {
	case AtOnce:
		return "at once"
	case Percent:
		return fmt.Sprintf("%s at %d%%", t.Of, t.N)
	case Blocks:
		return fmt.Sprintf("%s wrote %d", t.Of, t.N)
	}
	return fmt.Sprintf("%s %s", t.Of, t.Moment)
}

// String is the act in a few words, without its trigger.
func (a Act) String() string {
	words := []string{string(a.Do)}
	if a.Label != "" {
		words = []string{a.Label, "=", string(a.Do)}
	}
	for _, word := range []string{a.Instance, a.Host, a.Of, a.Option} {
		if word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// String is an instance in a line.
func (i Instance) String() string {
	var disks []string
	for _, d := range i.Disks {
		disks = append(disks, fmt.Sprintf("%s %s %s", d.Target, d.Format, d.Stands))
	}
	return fmt.Sprintf("%s on %s by %s, pool %s: %s", i.Name, i.Host, i.Maker, i.Pool, strings.Join(disks, ", "))
}

// String is the whole schedule, a line for each instance and each act.
func (s Schedule) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "seed %d, link %s\n", s.Seed, s.Link)
	for _, i := range s.Instances {
		fmt.Fprintf(&out, "     %s\n", i)
	}
	for n, a := range s.Acts {
		fmt.Fprintf(&out, "%3d  %-16s  %s\n", n+1, a.When, a)
	}
	return out.String()
}
