// Package hypervisor talks to this host's libvirt and, through it, to QEMU.
//
// It is the only importer of libvirt.org/go/libvirt. It knows domains, pools,
// block graphs and migrations, and nothing of records, plans or HTTP.
//
// No libvirt call takes a context, so every method runs its call on a
// goroutine and returns when the context ends; the abandoned call keeps its
// connection alive and frees its own handles when it returns. A context
// without a deadline is given one (Options.CallTimeout).
//
// A libvirt connection serves five requests at a time (max_client_requests)
// and a migration holds one for its whole length, as a call does that waits for
// a QEMU that hangs. So there is one connection for control, one for looks that
// never wait for QEMU, one for statistics, one for each migration, and two for
// each domain that is being stopped; and one without any calls that tells when
// libvirt itself hangs.
package hypervisor
