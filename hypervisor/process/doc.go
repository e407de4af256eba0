// Package process holds on to the QEMU processes of this host.
//
// Libvirt tells nobody which process a domain is: its number is in a file that
// QEMU wrote at its start, and a number may since have been given to another
// process. So what a number says is believed only after the process was pinned
// by a pidfd (pidfd_open(2)) and, pinned, was seen to have been started with
// the domain's UUID. From then on neither a signal nor a wait can meet another
// process, and that it has ended is known for certain: its files are closed
// before the pidfd says so.
//
// Nothing here needs libvirt, a store or a network.
package process
