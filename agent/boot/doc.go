// Package boot starts instances again that ran when their host went down.
//
// Those are known by the note of the shutdown, and after a power cut by what
// the records say. Another run of the kernel tells a host that was down from an
// agent that was only restarted. What the operator had stopped stays down.
package boot
