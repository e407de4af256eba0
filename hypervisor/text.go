package hypervisor

import (
	"strconv"

	"libvirt.org/go/libvirt"
)

// State is a domain's state in virsh's words.
type State string

// States of a domain.
const (
	Running     State = "running"
	Paused      State = "paused"
	Shutoff     State = "shutoff"
	Crashed     State = "crashed"
	PMSuspended State = "pmsuspended"
	Shutdown    State = "shutdown" // on its way down
	Blocked     State = "blocked"
	NoState     State = "nostate"
)

var stateText = map[libvirt.DomainState]State{
	libvirt.DOMAIN_NOSTATE: NoState, libvirt.DOMAIN_RUNNING: Running, libvirt.DOMAIN_BLOCKED: Blocked,
	libvirt.DOMAIN_PAUSED: Paused, libvirt.DOMAIN_SHUTDOWN: Shutdown, libvirt.DOMAIN_SHUTOFF: Shutoff,
	libvirt.DOMAIN_CRASHED: Crashed, libvirt.DOMAIN_PMSUSPENDED: PMSuspended,
}

// States gives every state, for who waits for any.
func States() []State {
	return []State{Running, Paused, Shutoff, Crashed, PMSuspended, Shutdown, Blocked, NoState}
}

// The tables below are libvirt's enumerations (virDomainRunningReason and so
// on), in order; their index is libvirt's number.
var (
	runningText = []string{"unknown", "booted", "migrated", "restored", "from-snapshot", "unpaused", "migration-canceled", "save-canceled", "wakeup", "crashed", "postcopy", "postcopy-failed"}
	pausedText  = []string{"unknown", "user", "migration", "save", "dump", "ioerror", "watchdog", "from-snapshot", "shutting-down", "snapshot", "crashed", "starting-up", "postcopy", "postcopy-failed", "api-error"}
	shutoffText = []string{"unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "daemon"}
	crashedText = []string{"unknown", "panicked"}
	downText    = []string{"unknown", "user"}

	lifecycleActions = []string{"defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "pmsuspended", "crashed"}
	lifecycleDetails = [][]string{
		{"added", "updated", "renamed", "from-snapshot"},
		{"removed", "renamed"},
		{"booted", "migrated", "restored", "from-snapshot", "wakeup", "recreated"},
		{"paused", "migrated", "ioerror", "watchdog", "restored", "from-snapshot", "api-error", "postcopy", "postcopy-failed", "guest-shutdown"},
		{"unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"},
		{"shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "recreated"},
		{"finished", "guest", "host"},
		{"memory", "disk"},
		{"panicked", "crashloaded"},
	}

	blockJobTypes    = []string{"unknown", "pull", "copy", "commit", "active-commit", "backup"}
	blockJobStatuses = []string{"completed", "failed", "canceled", "ready"}
)

func textAt(table []string, i int) string {
	if i < 0 || i >= len(table) {
		return strconv.Itoa(i)
	}
	return table[i]
}

func stateOf(s libvirt.DomainState) State {
	if t, ok := stateText[s]; ok {
		return t
	}
	return State(strconv.Itoa(int(s)))
}

func reasonOf(s libvirt.DomainState, reason int) string {
	switch s {
	case libvirt.DOMAIN_RUNNING:
		return textAt(runningText, reason)
	case libvirt.DOMAIN_PAUSED:
		return textAt(pausedText, reason)
	case libvirt.DOMAIN_SHUTOFF:
		return textAt(shutoffText, reason)
	case libvirt.DOMAIN_CRASHED:
		return textAt(crashedText, reason)
	case libvirt.DOMAIN_SHUTDOWN:
		return textAt(downText, reason)
	}
	return "unknown"
}

func lifecycleText(e libvirt.DomainEventType, detail int) (action, why string) {
	action = textAt(lifecycleActions, int(e))
	if int(e) < 0 || int(e) >= len(lifecycleDetails) {
		return action, strconv.Itoa(detail)
	}
	return action, textAt(lifecycleDetails[e], detail)
}

func blockJobType(t libvirt.DomainBlockJobType) string { return textAt(blockJobTypes, int(t)) }

func blockJobStatus(s libvirt.ConnectDomainEventBlockJobStatus) string {
	return textAt(blockJobStatuses, int(s))
}
