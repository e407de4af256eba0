// Package volume knows the files that disks stand on: it reads image headers
// and follows backing chains without trusting them, makes destination volumes
// that it can prove it owns, fills them, and compares folders and bytes
// between hosts.
//
// Nothing here guesses. A format is always told by the caller or recorded in
// the layer above; a name that a header gives is opened only when it lies in a
// folder the caller allowed; a file is removed only when it is still the very
// inode that Reserve made.
//
// The package knows neither libvirt nor the agent. Everything that writes an
// image goes through qemu-img, by an injected Runner.
package volume
