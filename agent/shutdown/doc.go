// Package shutdown stops every instance of this host, when nothing but the host
// itself can be reached.
//
// The highest stop priority goes first, each priority together, and one
// deadline holds for all: what is left of it is shared among those that are
// still to come, and when it nears, power is cut so that storage is released
// (plan.go, which is pure). What libvirt does not answer is found from the
// processes of the host, and asked through QEMU's own monitor.
//
// It works from libvirt, the host's processes and the host's own records: no
// store, no journal, no network. Whoever has those, the agent, may add to it:
// see Runner.Seize and Runner.Tell. A file says that a shutdown is under way
// and which instances it found running, for whoever starts them again.
package shutdown
