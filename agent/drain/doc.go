// Package drain is the agent's side of a host's shutdown: it adds to package
// shutdown what the agent has, an operation that is journalled and followed,
// events, and the locks of instances. Where the store takes nothing it goes on
// without it.
//
// From the beginning of a shutdown the host is draining: it takes no instance
// in and starts none, until the next start of the agent.
package drain
