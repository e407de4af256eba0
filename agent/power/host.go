package power

import (
	"log/slog"

	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/process"
)

// New gives the ladder of this host. The client need not be connected, nor
// running: whatever can be done without libvirt is then done without it.
func New(client *hypervisor.Client, log *slog.Logger) Ladder {
	return Ladder{
		Libvirt: client, Log: log, Find: Processes(process.Finder{}),
		Session: func(name string) Session { return client.Session(name) },
	}
}

// Processes finds the processes of this host.
func Processes(f process.Finder) func(name, uuid string) (Process, error) {
	return func(name, uuid string) (Process, error) {
		p, err := f.Find(name, uuid)
		if p == nil {
			return nil, err // an interface that holds no process would not be nil
		}
		return p, err
	}
}
