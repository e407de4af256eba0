package migrate

import "github.com/wherry-kvm/wherry/http/api"

// Choice is what a person has decided about an instance that nobody else can
// decide about.
type Choice struct {
	Keep Verdict `json:"keep"` // KeepSource or KeepDestination
	// Other is what was stated about a host that cannot be asked: api.OtherDown,
	// api.OtherHasIt, or "" for nothing.
	Other string `json:"other,omitempty"`
}

// Resolution is what a choice comes to by what both hosts say now. The parts
// are done in the order in which they stand here: nothing of the copy that is
// given up goes before the other one is where it is to be.
type Resolution struct {
	// Refusal says why nothing may be done; "" where that is not so.
	Refusal string

	Halt              bool // pause the source's copy, which runs
	ResumeDestination bool // let the destination's copy run
	EndDestination    bool // end the destination's copy, its volumes stay
	ResumeSource      bool // let the source's copy run
	// Commit hands the instance over to the destination.
	Commit bool
	// Discard lets the volumes of the copy that is given up go. Without it they
	// stay: nobody has seen the other one run.
	Discard bool
}

// Resolve says what a choice comes to. It refuses what would make two running
// copies or destroy the only one; a statement counts only where a host cannot
// be asked, and never against what is known.
func Resolve(c Choice, src, dst Side) Resolution {
	refuse := func(why string) Resolution { return Resolution{Refusal: why} }
	switch {
	case src.silent():
		return refuse("the source's libvirt does not answer")
	// To end either half ends the guest, which is for a stop to do, by its name;
	// neither can be resumed without the other.
	case src.split():
		return refuse("it is in post-copy: a part of its memory is on each host, and neither can go on without the other")
	case dst.part():
		return refuse("the destination has only a part of its memory, with which it cannot go on, and what the guest wrote last. Stop it there first")
	case src.Job:
		return refuse("the migration is still going on at the source")
	case c.Keep == KeepSource:
		return resolveToSource(c, src, dst, refuse)
	case c.Keep == KeepDestination:
		return resolveToDestination(c, src, dst, refuse)
	}
	return refuse("no side was chosen")
}

func resolveToSource(c Choice, src, dst Side, refuse func(string) Resolution) Resolution {
	switch {
	case dst.silent() && c.Other == api.OtherHasIt:
		return refuse("the instance is said to run at the destination: to let it go on at the source would make two running copies")
	case dst.silent() && (src.Sent || src.Unsure || !src.active()) && c.Other != api.OtherDown:
		return refuse("the destination does not answer, and may run it: there could be two running copies. State that it does not run there (--other-host down)")
	case src.State == "" && dst.State != "":
		return refuse("there is nothing of it at the source: the only copy would be destroyed")
	case !src.active() && dst.alive():
		return refuse("it runs at the destination and not at the source: the only one that runs would be destroyed. Stop it first")
	case !src.active() && dst.State != "" && dst.State != "shutoff" && !dst.silent():
		return refuse("it is active at the destination and not at the source: the only one that is would be destroyed. Stop it first")
	case src.active() && !src.alive() && !src.paused():
		return refuse("it is " + src.State + " at the source: nobody can tell whether it can go on there")
	}
	return Resolution{EndDestination: dst.State != "" && !dst.silent(), ResumeSource: src.paused(), Discard: src.active() && !dst.silent()}
}

func resolveToDestination(c Choice, src, dst Side, refuse func(string) Resolution) Resolution {
	switch {
	case dst.silent() && src.active() && !src.Sent:
		return refuse("it was never handed over whole to the destination, which does not answer: the only copy would be destroyed")
	case dst.silent() && c.Other != api.OtherHasIt:
		return refuse("the destination does not answer: the only copy could be destroyed. State that it runs there (--other-host has-it)")
	case dst.silent():
		return Resolution{Halt: src.alive(), Commit: false}
	case dst.State == "" && src.State != "":
		return refuse("there is nothing of it at the destination: the only copy would be destroyed")
	case dst.State == "incoming":
		return refuse("it is still arriving at the destination: what is there may not be whole")
	case dst.State == "shutoff" && src.alive():
		return refuse("it runs at the source and is shut off at the destination: the only one that runs would be destroyed. Stop it first")
	case dst.State != "" && !dst.alive() && !dst.paused() && dst.State != "shutoff":
		return refuse("it is " + dst.State + " at the destination: nobody can tell whether it can go on there")
	}
	return Resolution{Halt: src.alive(), ResumeDestination: dst.paused(), Commit: true, Discard: dst.alive() || dst.paused()}
}

// active tells whether there is a QEMU of the instance.
func (s Side) active() bool { return !s.gone() && !s.silent() }
