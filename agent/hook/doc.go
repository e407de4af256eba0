// Package hook does what is owed to an instance that ended by itself or by
// somebody else's hand, when libvirt's hook tells of it.
//
// Libvirt waits for its hook, holding the domain meanwhile, and a hook that
// calls back waits for itself (libvirt, hooks.html). So the agent is told, with
// a short deadline, and answers before it does anything; where it does not
// answer the work is handed to a process of its own. Nothing here speaks to
// libvirt, whoever calls it.
//
// Libvirt calls its hook at "stopped" and again at "release". Storage is let go
// of at "release" only: in between libvirt takes its labels off the disks.
package hook
