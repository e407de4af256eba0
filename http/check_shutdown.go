package http

import (
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// Bounds of a stop policy. A guest that takes longer than a day to stop does
// not stop.
const (
	mostPriority    = 1_000_000
	mostStopTimeout = 24 * time.Hour
)

func (f *faults) stopPolicy(at string, p api.StopPolicy) {
	if p.Priority < -mostPriority || p.Priority > mostPriority {
		f.add(at+"priority", "is not between -1000000 and 1000000")
	}
	if p.Timeout.Std() > mostStopTimeout {
		f.add(at+"timeout", "is more than 24h")
	}
	f.oneOf(at+"action", p.Action, api.StopAsk, api.StopForce)
}

func checkHook(r api.HookRequest) (f faults) {
	f.name("name", r.Name)
	f.uuid("uuid", r.UUID)
	f.oneOf("operation", r.Operation, "stopped", "release")
	return f
}
