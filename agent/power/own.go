package power

import "github.com/wherry-kvm/wherry/hypervisor"

// ownWords are the states that QEMU tells of itself (RunState of its protocol),
// in libvirt's words. What is not here is a pause that nobody can explain.
var ownWords = map[string]struct {
	state  hypervisor.State
	reason string
}{
	"running":        {hypervisor.Running, ""},
	"shutdown":       {hypervisor.Shutdown, ""},
	"suspended":      {hypervisor.PMSuspended, ""},
	"guest-panicked": {hypervisor.Paused, "crashed"},
	"paused":         {hypervisor.Paused, "user"}, // by a stop command; why, only who gave it knows
	"io-error":       {hypervisor.Paused, "ioerror"},
	"watchdog":       {hypervisor.Paused, "watchdog"},
	"prelaunch":      {hypervisor.Paused, "starting-up"},
	"save-vm":        {hypervisor.Paused, "save"},
	"finish-migrate": {hypervisor.Paused, "migration"},
	"postmigrate":    {hypervisor.Paused, "migration"},
	"inmigrate":      {hypervisor.Paused, "migration"},
}

// ownWord puts what QEMU says of its state into the domain.
func ownWord(word string, d *hypervisor.Domain) {
	known, ok := ownWords[word]
	if !ok {
		known.state, known.reason = hypervisor.Paused, "unknown"
	}
	d.State, d.Reason, d.Incoming = known.state, known.reason, word == "inmigrate"
}
