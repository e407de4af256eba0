package migrate

import "fmt"

// Side is what one host says of the instance after a migration ended unclearly.
type Side struct {
	// State is libvirt's: "running", "paused", "shutoff", "incoming", ...; ""
	// when the instance is not there, "unknown" when the host did not answer.
	State string
	// Reason is libvirt's reason for the state, where known.
	Reason string
	// Job says that a migration is still under way there.
	Job bool
	// Sent says of the source that its QEMU has handed the guest over whole, so
	// that the destination can have started it.
	Sent bool
	// Unsure says that the source's QEMU does not tell whether it has.
	Unsure bool
	// Held says of the source that it cannot have run since it was handed over.
	Held bool
	// Halted says of the source that the agent paused it, see [Judge].
	Halted bool
	// Committed says of the destination that it has taken the instance for its own,
	// which it does by itself where its source was silent for a lease.
	Committed bool
}

const unknown = "unknown"

func (s Side) gone() bool   { return s.State == "" || s.State == "shutoff" }
func (s Side) alive() bool  { return s.State == "running" }
func (s Side) paused() bool { return s.State == "paused" }
func (s Side) silent() bool { return s.State == unknown }

// halved tells that post-copy has begun and broken off: libvirt keeps the job,
// with which it can be taken up again, and the guest's memory is on both hosts.
func (s Side) halved() bool { return s.paused() && s.Reason == "postcopy-failed" }

// part tells of the destination that it has only a part of the guest's memory. It
// is said to run all the same, and does until it needs what is missing.
func (s Side) part() bool { return (s.paused() || s.alive()) && s.Reason == "postcopy-failed" }

// split tells of the source that a part of the guest's memory is on each host.
func (s Side) split() bool { return s.halved() || s.paused() && s.Reason == "postcopy" }

// Journal is how far a migration has come by what was written down.
type Journal string

// How far a migration has come.
const (
	Untouched  Journal = "untouched"  // nothing was done at the destination
	Prepared   Journal = "prepared"   // the destination has made room, libvirt was not asked yet
	Performing Journal = "performing" // libvirt was asked to move it, and what it answered is not known
	Moved      Journal = "moved"      // libvirt has said that it moved, or both hosts have
	Committed  Journal = "committed"  // the destination has confirmed
)

// Verdict is where the instance is to go on.
type Verdict string

// The verdicts.
const (
	KeepSource      Verdict = "source"
	KeepDestination Verdict = "destination"
	Wait            Verdict = "wait"      // it is still going on, or a host must be asked again
	Undecided       Verdict = "undecided" // a person must look: nothing is destroyed
)

// What is said of an instance that goes on where it was.
const (
	runsAtSource      = "it runs at the source"
	hasShutDown       = "it has shut down at the source"
	runsAtSourceAlone = "it runs at the source and no migration is under way; the destination does not answer"
)

// row is one line of the decision table. The first that fits decides.
type row struct {
	name     string
	journal  []Journal // nil = performing, when only both hosts can tell
	fits     func(src, dst Side) bool
	verdict  Verdict
	passes   bool // what only time can tell: wait, and undecided once patience is over
	halt     bool // the copy at the source must not run on meanwhile
	why      string
	describe bool // the states belong into why
}

// always fits.
func always(Side, Side) bool { return true }

// table decides where an instance goes on. What is destroyed on a verdict is
// always the other side's copy, so each row that gives one has to say how it
// is known that this is not the only one, and that the other does not run.
var table = []row{
	// Once the instance runs at the destination the source's copy is stale,
	// whatever either host says later.
	{name: "confirmed", journal: []Journal{Committed}, fits: always, verdict: KeepDestination, why: "the destination has confirmed that it has the instance"},
	{name: "moved", journal: []Journal{Moved}, fits: always, verdict: KeepDestination, why: "it has moved to the destination"},
	// Before libvirt is asked nothing can have moved.
	{name: "not begun", journal: []Journal{Untouched, Prepared}, fits: always, verdict: KeepSource, why: "libvirt was not asked to move it yet"},

	// Neither copy is stale then: ending one ends the guest.
	{name: "post-copy broken off", fits: func(s, _ Side) bool { return s.halved() }, passes: true,
		why: "post-copy has broken off: a part of its memory is on each host, and neither can do without the other (virsh migrate --postcopy-resume takes it up again)"},
	{name: "in post-copy", fits: func(s, _ Side) bool { return s.paused() && s.Reason == "postcopy" && !s.Job }, passes: true,
		why: "it is in post-copy: a part of its memory is on each host, and neither can do without the other"},
	{name: "still moving", fits: func(s, _ Side) bool { return s.Job }, verdict: Wait, why: "the migration is still going on at the source"},
	{name: "source silent", fits: func(s, _ Side) bool { return s.silent() }, passes: true, why: "the source's libvirt does not answer"},

	// The source's half may have ended. What the guest wrote last is at the
	// destination, and it cannot go on there.
	{name: "post-copy broken off there", fits: func(s, d Side) bool { return d.halved() || d.part() && !s.alive() }, passes: true,
		why: "post-copy has broken off: the destination has a part of its memory, and waits for the rest"},

	// It has seen the guest run, and gives nothing back. What has run here beside it
	// is for a person to weigh.
	{name: "taken by the destination", fits: func(s, d Side) bool { return d.Committed && !s.alive() && !s.Halted }, verdict: KeepDestination,
		why: "the destination has taken it: its guest has run there"},
	{name: "both run", fits: func(s, d Side) bool { return s.alive() && d.alive() }, verdict: Undecided, halt: true, why: "it runs on both hosts"},
	{name: "handed over, no answer", fits: func(s, d Side) bool { return s.alive() && d.silent() && s.Sent }, passes: true, halt: true,
		why: "it runs at the source, which has handed it over whole, and the destination does not answer"},
	{name: "perhaps handed over, no answer", fits: func(s, d Side) bool { return s.alive() && d.silent() && s.Unsure }, passes: true,
		why: "it runs at the source, whose QEMU does not say whether it has handed it over, and the destination does not answer"},
	// Libvirt there may be about to start it, though its answer was lost and
	// libvirt here has started it again: a moment later both would run.
	{name: "handed over, not started yet", fits: func(s, d Side) bool { return s.alive() && s.Sent && !d.gone() && !d.silent() }, passes: true, halt: true,
		why: "it runs at the source, which has handed it over whole, and the destination may start it yet"},
	{name: "rolled back, no answer", fits: func(s, d Side) bool { return s.alive() && d.silent() }, verdict: KeepSource, why: runsAtSourceAlone},
	// Libvirt defines it there only once it has arrived: its guest has run there,
	// and was ended. It is not for us to say whose writes count.
	{name: "runs here, shut down there", fits: func(s, d Side) bool { return s.alive() && d.State == "shutoff" }, verdict: Undecided,
		why: "it runs at the source, and has arrived at the destination, where it is shut off"},
	{name: "rolled back", fits: func(s, _ Side) bool { return s.alive() }, verdict: KeepSource, why: runsAtSource},

	{name: "destination silent", fits: func(_, d Side) bool { return d.silent() }, passes: true, why: "the destination does not answer"},
	// The copy at the source has run beside it for a moment, and nobody but its
	// owner can tell whether that matters.
	{name: "ran on both", fits: func(s, d Side) bool { return d.alive() && s.Halted }, verdict: Undecided,
		why: "it runs at the destination; libvirt had started it again at the source, where the agent paused it"},
	{name: "moved, by both hosts", fits: func(s, d Side) bool { return d.alive() && (s.gone() || s.paused()) }, verdict: KeepDestination, why: "it runs at the destination"},
	{name: "arriving", fits: func(_, d Side) bool { return d.State == "incoming" }, passes: true, why: "it is still arriving at the destination"},
	{name: "left paused by libvirt", fits: func(s, d Side) bool { return s.paused() && d.State == "" && s.Reason == "migration" }, passes: true,
		why: "it is paused at the source after a migration, and not at the destination"},
	// Libvirt defines it there only once it has arrived with all that was written
	// here.
	{name: "gone down there, held here", fits: func(s, d Side) bool {
		return s.Held && !s.Halted && (s.paused() || s.State == "shutoff") && d.State == "shutoff"
	}, verdict: KeepDestination, why: "it has gone down at the destination, and the copy at the source has not run since it was handed over"},
	{name: "paused here, shut down there", fits: func(s, d Side) bool { return s.paused() && d.State == "shutoff" }, passes: true,
		why: "it is paused at the source, and has arrived at the destination, where it is shut off"},
	{name: "paused at the source", fits: func(s, d Side) bool { return s.paused() && d.State == "" }, verdict: KeepSource, why: "it is paused at the source"},
	// It has gone to sleep, or crashed and was left for somebody to look at.
	{name: "never left the source", fits: func(s, d Side) bool {
		return s.active() && !s.alive() && !s.paused() && !s.Sent && !s.Unsure && d.State == ""
	}, verdict: KeepSource, why: "it is at the source, neither running nor paused, and was never handed over"},
	{name: "both paused", fits: func(s, d Side) bool { return s.paused() && d.paused() }, passes: true, why: "it is paused on both hosts"},
	// Libvirt defines it there, and forgets it here, only once it has moved.
	{name: "moved, and shut down since", fits: func(s, d Side) bool { return s.State == "" && d.State == "shutoff" }, verdict: KeepDestination, why: "it has shut down at the destination"},
	{name: "moved, paused", fits: func(s, d Side) bool { return s.gone() && d.paused() }, verdict: KeepDestination, why: "it is paused at the destination and gone from the source"},
	{name: "shut down at the source", fits: func(s, d Side) bool { return s.State == "shutoff" && d.State == "" }, verdict: KeepSource, why: hasShutDown},
	// It may have moved and gone down there: its last writes are there then.
	{name: "shut down on both", fits: func(s, d Side) bool { return s.State == "shutoff" && d.State == "shutoff" }, passes: true, why: "it is shut off on both hosts"},
	{name: "on neither", fits: func(s, d Side) bool { return s.gone() && d.gone() }, passes: true, why: "it is on neither host"},
	{name: "anything else", fits: always, passes: true, describe: true},
}

// Situation is all that a decision stands on.
type Situation struct {
	Source, Destination Side
	Journal             Journal
	// Patient: there is time left to ask again.
	Patient bool
}

// Judgement is what the decision table says.
type Judgement struct {
	Verdict Verdict
	// Why is a sentence for people.
	Why string
	// Halt: the copy at the source is to be paused, because the one at the
	// destination runs, or was handed everything and may.
	Halt bool
	// Row names the line of the table.
	Row string
}

// Judge says which host has the instance. It never guesses: what only time or
// a person can tell is Wait, and Undecided once patience is over.
func Judge(s Situation) Judgement {
	for _, r := range table {
		if !r.at(s.Journal) || !r.fits(s.Source, s.Destination) {
			continue
		}
		j := Judgement{Verdict: r.verdict, Why: r.why, Halt: r.halt, Row: r.name}
		if r.passes {
			j.Verdict = Undecided
			if s.Patient {
				j.Verdict = Wait
			}
		}
		if r.describe {
			j.Why = fmt.Sprintf("the source says %q, the destination %q", s.Source.State, s.Destination.State)
		}
		return j
	}
	return Judgement{Verdict: Undecided, Why: fmt.Sprintf("the journal says %q", s.Journal)}
}

func (r row) at(j Journal) bool {
	if r.journal == nil {
		return j == Performing
	}
	for _, k := range r.journal {
		if k == j {
			return true
		}
	}
	return false
}
