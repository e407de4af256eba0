package rebuild

import (
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// journal is what the operation keeps for its recovery. Each field is on disk
// before what it says is done.
type journal struct {
	UUID string `json:"uuid"`
	Plan Plan   `json:"plan"`
	// Ran: it ran when the rebuild began, and is to run when it ends, however it
	// ends. Stopping: it may have been told to stop. Stopped: it is down, and
	// how.
	Ran      bool            `json:"ran"`
	Stopping bool            `json:"stopping,omitempty"`
	Stopped  *api.StopResult `json:"stopped,omitempty"`
	// Old is the old volume, where Wherry made it and so may remove it.
	Old *volume.Owned `json:"old,omitempty"`
	// Path is the new volume's, which no other operation uses; New its identity,
	// before it gets its first byte.
	Path string        `json:"path,omitempty"`
	New  *volume.Owned `json:"new,omitempty"`
	// Switching: the new volume is whole and on disk, and from here on the
	// definition may name it. Before and Record are what was there until then.
	Switching bool        `json:"switching,omitempty"`
	Before    string      `json:"before,omitempty"`
	Record    *api.Record `json:"record,omitempty"`
	// Done: the new disk stays. Only what is left of the old one is to do.
	Done bool `json:"done,omitempty"`
}
