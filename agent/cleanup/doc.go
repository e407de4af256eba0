// Package cleanup does what is owed to an instance once its process is gone:
// its targets are disconnected, what interrupted writes left is removed, and
// the power state of this instance is written.
//
// It works from the host's own record alone, with no store, no journal and no
// libvirt. What is owed is noted in a file before the process is ended, and
// the note goes when all is done: a crash, or a step that failed, leaves it to
// the next start of the agent. Every step is tried, whatever became of those
// before it, and every failure is told.
package cleanup
