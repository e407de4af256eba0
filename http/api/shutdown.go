package api

import "time"

// Actions of a stop policy.
const (
	StopAsk   = "stop"  // ask the guest, and cut its power when its time is over
	StopForce = "force" // cut its power at once: nothing in it is worth waiting for
)

// StopPolicy says how an instance goes down with its host.
type StopPolicy struct {
	// Priority: the highest go down first, those that are equal together. At the
	// next start of the host the lowest come up first. 0 where nobody says.
	Priority int `json:"priority,omitempty" yaml:"priority,omitempty"`
	// Timeout is how long the guest is given at most; 0 = 2 minutes. The host's
	// own deadline may leave it less.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout,omitempty"`
	// Action is "stop" or "force"; "" = "stop".
	Action string `json:"action,omitempty" yaml:"action,omitempty"`
}

// ShutdownRequest stops every instance of a host.
type ShutdownRequest struct {
	// Timeout is for all instances together; 0 = what they ask for, 5 minutes
	// at most.
	Timeout Duration `json:"timeout,omitempty"`
}

// ShutdownResult says what became of every instance of the host.
type ShutdownResult struct {
	// By is who did it: "agent", or "command" where that could not.
	By        string             `json:"by"`
	Began     time.Time          `json:"began"`
	Deadline  time.Time          `json:"deadline"`
	Instances []ShutdownInstance `json:"instances"`
	Warnings  []string           `json:"warnings,omitempty"`
}

// Outcomes of a [ShutdownInstance].
const (
	ShutdownWaiting  = "waiting"  // for those of a higher priority
	ShutdownStopping = "stopping" // under way
	ShutdownStopped  = "stopped"
	ShutdownMoved    = "moved"    // to another host, by a migration that was past the point of return
	ShutdownReturned = "returned" // it was arriving, and stays with the host that it came from
	ShutdownFailed   = "failed"
)

// ShutdownInstance is what became of one instance.
type ShutdownInstance struct {
	Project  string `json:"project"`
	Name     string `json:"name"`
	UUID     string `json:"uuid"`
	Priority int    `json:"priority"`
	Outcome  string `json:"outcome"`
	// Rung ended it; Rungs and Warnings are those of a stop.
	Rung     string     `json:"rung,omitempty"`
	Rungs    []RungTime `json:"rungs,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
	Took     Duration   `json:"took,omitempty"`
	// Error is why it goes on, or what of its clean-up is still owed.
	Error string `json:"error,omitempty"`
}

// Failed counts the instances that could not be stopped.
func (r ShutdownResult) Failed() (n int) {
	for _, i := range r.Instances {
		if i.Outcome == ShutdownFailed {
			n++
		}
	}
	return n
}

// Shutdown is how far the shutdown of a host is.
type Shutdown struct {
	// Running is false when it has ended, or none was asked for.
	Running bool `json:"running"`
	// Operation follows it; "" where the store takes none.
	Operation string `json:"operation,omitempty"`
	// Result grows while it runs; nil where none was asked for since the agent
	// was started.
	Result *ShutdownResult `json:"result,omitempty"`
}

// HookRequest is what libvirt's hook tells the agent: an instance has ended.
type HookRequest struct {
	Name string `json:"name"`
	UUID string `json:"uuid"`
	// Operation is libvirt's word for what happened: "stopped" or "release".
	Operation string `json:"operation"`
	// Reason is why it ended, where libvirt says; "migrated" for one that moved.
	Reason string `json:"reason,omitempty"`
	// Called is when libvirt called its hook, as the time since the host was
	// booted; 0 = not known. An instance whose process was started later runs
	// again, and is not what ended.
	Called Duration `json:"called,omitempty"`
}
