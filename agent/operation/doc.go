// Package operation runs long jobs so that a crash at any instruction leaves
// something to go on from: an operation is journalled before it runs, each of
// its steps is journalled before and after, what it did can be undone, and an
// operation that was running when the agent died is handed to the recovery of
// its kind at the next start.
//
// An operation on an instance holds that instance's lock, keyed by project and
// name, from before its first journal entry until after its last. The lock of
// an unfinished operation is taken again when the journal is opened.
//
// Journal entries hold requests whole, secrets of targets included: the store
// must be readable by the agent only.
package operation
