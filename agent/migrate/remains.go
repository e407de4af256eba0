package migrate

import "time"

// Ended is what the journal says of a migration from this host that has ended.
type Ended struct {
	Operation, UUID string
	At              time.Time
	// Remains: the instance has gone for good, and the copy that libvirt left
	// here could not be removed.
	Remains bool
}

// Ended reads that of one operation; false where it has not come far enough to
// have made anything.
func (s *Service) Ended(id string, at time.Time) (Ended, bool, error) {
	var st state
	found, err := s.Operations.Load(id, "migration", &st)
	if err != nil || !found || !st.Performing {
		return Ended{}, false, err
	}
	return Ended{Operation: id, UUID: st.UUID, At: at, Remains: st.Committed && st.Remains}, true, nil
}
