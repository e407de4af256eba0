// Package rebuild replaces the root disk of an instance: by a fresh one of the
// same template, of another one, or by an empty one. Everything else stays:
// the definition with its UUID and MAC addresses, NVRAM and TPM state, the
// other disks.
//
// The new disk is made beside the old one, whole and on disk, before the
// definition names it, and the old one goes when nothing leads to it any more.
// So there is one point at which the one takes the other's place: libvirt's
// replacing of the definition. Before it a failure leaves the old disk as it
// was; after it the new one stands. Who comes back after a crash asks libvirt
// which of the two the definition names, and the journal how far it was
// ([Settle]).
package rebuild
