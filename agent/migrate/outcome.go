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
	// Halted says of the source that the agent paused it, see [Halt].
	Halted bool
}

func (s Side) gone() bool  { return s.State == "" || s.State == "shutoff" }
func (s Side) alive() bool { return s.State == "running" }

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
	runsAtSourceAlone = "it runs at the source and no migration is under way; the destination does not answer"
)

// Halt tells whether the copy at the source must not run on: the one at the
// destination runs, or was handed everything and may.
func Halt(src, dst Side) bool {
	return src.alive() && !src.Job && (dst.alive() || dst.State == "unknown" && src.Sent)
}

// Settle says which host has the instance, with the reason. It never guesses:
// what only time or a person can tell is Wait, and Undecided once patience is
// over.
func Settle(src, dst Side, patient bool) (Verdict, string) {
	later := func(why string) (Verdict, string) {
		if patient {
			return Wait, why
		}
		return Undecided, why
	}
	switch {
	case src.Job:
		return Wait, "the migration is still going on at the source"
	case src.State == "unknown":
		return later("the source's libvirt does not answer")
	case src.alive() && dst.alive():
		return Undecided, "it runs on both hosts"
	case src.alive() && dst.State == "unknown" && src.Sent:
		return later("it runs at the source, which has handed it over whole, and the destination does not answer")
	case src.alive() && dst.State == "unknown":
		return KeepSource, runsAtSourceAlone
	case src.alive():
		return KeepSource, runsAtSource
	case dst.State == "unknown":
		return later("the destination does not answer")
	case dst.alive() && src.Halted:
		// The copy at the source has run beside it for a moment, and nobody but
		// its owner can tell whether that matters.
		return Undecided, "it runs at the destination; libvirt had started it again at the source, where the agent paused it"
	case dst.alive() && (src.gone() || src.State == "paused"):
		return KeepDestination, "it runs at the destination"
	case dst.State == "incoming":
		return later("it is still arriving at the destination")
	case src.State == "paused" && dst.gone():
		if src.Reason == "migration" {
			return later("it is paused at the source after a migration, and not at the destination")
		}
		return KeepSource, "it is paused at the source"
	case src.State == "paused" && dst.State == "paused":
		return later("it is paused on both hosts")
	case src.State == "" && dst.State == "shutoff":
		// Libvirt defines it there, and forgets it here, only once it has moved.
		return KeepDestination, "it has shut down at the destination"
	case src.gone() && dst.State == "paused":
		return KeepDestination, "it is paused at the destination and gone from the source"
	case src.State == "shutoff" && dst.State == "":
		return KeepSource, "it has shut down at the source"
	case src.State == "shutoff" && dst.State == "shutoff":
		// It may have moved and gone down there: its last writes are there then.
		return later("it is shut off on both hosts")
	case src.gone() && dst.gone():
		return later("it is on neither host")
	}
	return later(fmt.Sprintf("the source says %q, the destination %q", src.State, dst.State))
}
