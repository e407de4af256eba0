// Package power brings one instance down, and says which rung of the ladder
// ended it.
//
// The rungs are, from the gentlest: the guest agent, if it answers a ping; the
// power button, pressed again and again, since a press is lost while a guest
// boots; and, only where that is allowed, QEMU's own quit, SIGTERM and SIGKILL.
// Which is next is decided by a pure function of what is known (decide.go);
// the rest of the package looks and acts.
//
// While libvirt is away QEMU can be asked itself (own.go). Libvirt starts it so
// that it outlives its guest and waits to be ended: a process whose guest has
// powered off by QEMU's own word is ended by SIGTERM, which is no rung then.
//
// An instance is down when its process is gone, which a pidfd tells, and
// libvirt agrees. Before that nothing may touch its storage.
//
// The package needs a libvirt and the host's processes: no store, no journal,
// no record and no network.
package power
