// Package leftover finds files in this host's pools that nothing owns: no
// instance, record, template, reservation or unfinished operation names them.
// It also finds what an operation has had libvirt and QEMU make and nobody owns
// any more: copies of instances that have moved, logins of targets, and what a
// migration leaves in a running QEMU. It deletes them on request only, each by
// its identity and after another look. Wherry mounts nothing, so there are no
// mounts to find.
//
// A name is no proof that a file is needed by nobody: what cannot be read makes
// the whole answer an error, and pools that other hosts may have too are left
// out, which the answer says.
package leftover
