// Package guard keeps a copy of an instance that was handed over to another host
// from running beside the other one.
//
// Libvirt starts the instance at the source again when it does not hear that the
// destination has started it, although that may have happened. From the moment
// that QEMU has handed the guest over, a guard holds the source's volumes with
// QEMU's own locks: libvirt cannot take them back, and so the guest stays paused
// until both hosts have been asked. Before that moment QEMU must be able to go on
// by itself, when the migration fails.
//
// A guard is a process of its own, with a connection to libvirt of its own: the
// agent may be killed at that very moment, and a lock lasts as long as its
// process. The next agent finds it by its socket. It ends when it is lifted, or
// when the instance's QEMU has ended and there is nothing left to start; then it
// leaves word if it has held the volumes from the handover on.
package guard
