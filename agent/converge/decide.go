package converge

import (
	"cmp"
	"fmt"
	"time"
)

// Policies: what comes when the allowed downtime is not enough.
const (
	// Downtime raises the downtime in steps to its maximum, then gives up.
	Downtime = "downtime"
	// Pause stops the guest until the rest of its memory has crossed.
	Pause = "pause"
	// Abort gives up; the guest runs on where it is.
	Abort = "abort"
)

// FirstDowntime is where raising begins: QEMU's own default.
const FirstDowntime = 300 * time.Millisecond

// Limits say what may be done to a guest.
type Limits struct {
	Policy string // "" = Downtime
	// MaxDowntime is how long the guest may stand still; 0 = FirstDowntime.
	MaxDowntime time.Duration
	PostCopy    bool // asked for, and possible as far as is known
	// Patience is how long passes have to bring nothing before something is
	// done, LastPatience that before the guest is paused or the migration given
	// up; 0 = DefaultPatience and DefaultLastPatience.
	Patience, LastPatience time.Duration
}

func (l Limits) maximum() time.Duration {
	if l.MaxDowntime <= 0 {
		return FirstDowntime
	}
	return l.MaxDowntime
}

// First is the downtime that a migration begins with. Only where it may be
// raised later does it begin below its maximum.
func (l Limits) First() time.Duration {
	if l.Policy == Pause || l.Policy == Abort {
		return l.maximum()
	}
	return min(FirstDowntime, l.maximum())
}

// Action is what is to be done.
type Action string

// The actions. After the last three nothing more is decided.
const (
	Continue      Action = "continue"
	RaiseDowntime Action = "raise-downtime"
	StartPostCopy Action = "post-copy"
	PauseGuest    Action = "pause"
	GiveUp        Action = "abort"
)

// Act is something that was done.
type Act struct {
	Action   Action        `json:"action"`
	Downtime time.Duration `json:"downtime,omitempty"` // of a raise: the new one
	Number   int           `json:"number"`             // of the pass that had ended
	Elapsed  time.Duration `json:"elapsed"`
	// Refused: the hypervisor would not. It is not asked for again.
	Refused bool   `json:"refused,omitempty"`
	Reason  string `json:"reason"`
}

// Decision is what is to be done now, and why.
type Decision struct {
	Action   Action
	Downtime time.Duration // the longest downtime from now on
	Reason   string
}

// What is held to be no progress: so long, and so many passes, that brought
// nothing. A guest may write more for a moment. The last means cost most, and are
// given more time to be not needed.
const (
	DefaultPatience     = 5 * time.Second
	DefaultLastPatience = 20 * time.Second

	patiencePasses = 2
	lastPasses     = 3
	// nearer is by how much less has to be left for that to be progress.
	nearer = 0.02
	// atLeast is the number of passes that must have ended: the first sends all
	// memory and the second what was written during that.
	atLeast = 3
)

// Decide says what to do now that a pass has ended.
func Decide(h History, done []Act, l Limits) Decision {
	downtime := l.First()
	var acted Act
	refused := map[Action]bool{}
	for _, a := range done {
		switch {
		case a.Refused:
			refused[a.Action] = true
			continue // it changed nothing, and nothing is waited for
		case a.Action == RaiseDowntime:
			downtime = a.Downtime
		case a.Action != Continue:
			return Decision{Continue, downtime, fmt.Sprintf("%s was decided after pass %d", a.Action, a.Number)}
		}
		acted = a
	}
	decide := func(a Action, why string) Decision { return Decision{a, downtime, why} }
	if len(h.Passes) == 0 || h.Passes[len(h.Passes)-1].Number < atLeast {
		return decide(Continue, fmt.Sprintf("fewer than %d passes over memory have ended", atLeast))
	}
	last := h.Passes[len(h.Passes)-1]
	figures := last.figures(downtime)
	if need := last.Downtime(); need > 0 && need <= downtime {
		return decide(Continue, "what is left fits into the downtime: "+figures)
	}
	since := h.progress()
	if since.Number == last.Number {
		return decide(Continue, "it gets nearer to its end: "+figures)
	}
	quiet := Act{Number: max(since.Number, acted.Number), Elapsed: max(since.Elapsed, acted.Elapsed)}
	stuck := func(passes int, d time.Duration) bool {
		return last.Number-quiet.Number >= passes && last.Elapsed-quiet.Elapsed >= d
	}
	if !stuck(patiencePasses, cmp.Or(l.Patience, DefaultPatience)) {
		return decide(Continue, "waiting for what the last passes bring: "+figures)
	}
	why := fmt.Sprintf("no nearer to its end since pass %d: %s", quiet.Number, figures)
	switch {
	case l.PostCopy && !refused[StartPostCopy]:
		return decide(StartPostCopy, why)
	case downtime < l.maximum():
		return Decision{RaiseDowntime, min(2*downtime, l.maximum()), why}
	case !stuck(lastPasses, cmp.Or(l.LastPatience, DefaultLastPatience)):
		return decide(Continue, "waiting, with the longest downtime that is allowed, for what the last passes bring: "+figures)
	case l.Policy == Pause && !refused[PauseGuest]:
		return decide(PauseGuest, why)
	}
	return decide(GiveUp, why)
}

// progress gives the pass that last came nearer to the end: less was left than
// ever before, or auto-converge held the guest more than ever before.
func (h History) progress() Iteration {
	best := h.Passes[0]
	throttle := best.Throttle
	least := float64(best.Remaining)
	for _, it := range h.Passes[1:] {
		if float64(it.Remaining) < least*(1-nearer) {
			least, best = float64(it.Remaining), it
		}
		if it.Throttle > throttle {
			throttle, best = it.Throttle, it
		}
	}
	return best
}

// figures are those that a decision stands on, for people.
func (it Iteration) figures(downtime time.Duration) string {
	s := fmt.Sprintf("pass %d had %s to send at %s/s, while the guest writes %s/s", it.Number, size(it.Remaining), size(it.Bandwidth), size(it.DirtyRate))
	if it.Throttle > 0 {
		s += fmt.Sprintf(" though held for %d%% of its time", it.Throttle)
	}
	if need := it.Downtime(); need > 0 {
		s += fmt.Sprintf("; to stop it for that takes %s, %s is allowed", need.Round(time.Millisecond), downtime)
	}
	return s
}

// size is for people: 1.5 MiB.
func size(bytes int64) string {
	v, unit := float64(bytes), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}
