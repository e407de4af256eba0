package rebuild

// Names says which volume the definition names as the root disk.
type Names int

// What a definition may name.
const (
	NamesOld   Names = iota
	NamesNew         // the one that the rebuild made
	NamesOther       // somebody has changed it meanwhile
)

// Found is what a recovery finds.
type Found struct {
	Gone  bool // libvirt has no such instance any more
	Names Names
	Runs  bool // with what Names says
	// From the journal: how far it was, and whether it was being taken back.
	Switching, Done, Failed bool
}

// Verdict is what a recovery does.
type Verdict string

// What a recovery may do.
const (
	// Forward: see to it that the definition names the new volume, and go on.
	Forward Verdict = "forward"
	// Back: see to it that it names the old one, and remove the new one.
	Back Verdict = "back"
	// Leave: touch no definition; remove the new volume if nothing leads to it.
	Leave Verdict = "leave"
)

// Settle decides what becomes of a rebuild that the agent did not finish. It
// looks nothing up, and it gives the reason.
//
// Once the switch was begun it goes forward even where the definition still
// names the old volume: libvirt may have been asked and not have answered, and
// a definition that came after the new volume's removal would name nothing.
// Whatever a guest runs on is never taken from it.
func Settle(f Found) (Verdict, string) {
	switch {
	case f.Gone:
		return Leave, "the instance is gone"
	case f.Done:
		return Forward, "the new disk had taken the old one's place for good"
	case f.Names == NamesOther:
		return Leave, "somebody has given the instance another root disk"
	case f.Names == NamesNew && f.Runs:
		return Forward, "the instance runs on the new disk"
	case f.Failed:
		return Back, "it had failed, and was being taken back"
	case f.Names == NamesNew:
		return Forward, "the definition names the new disk"
	case f.Runs && f.Switching:
		return Back, "the instance runs on the old disk"
	case f.Switching:
		return Forward, "the new disk was whole, and libvirt may have been told of it"
	}
	return Back, "the new disk was not whole"
}
