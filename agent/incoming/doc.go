// Package incoming is the receiving side of a migration: it answers what this
// host would take (facts), makes room for an instance (a reservation with a
// lease), and ends that well (commit) or without a trace (remove).
//
// Everything a reservation makes is journalled before it exists, by a name that
// nobody else uses and then by inode, and only what is in the journal is ever
// deleted. A reservation whose source is gone ends by itself when its lease
// runs out: committed if the instance runs here, removed if it does not.
package incoming
