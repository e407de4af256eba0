// Package inspect says what each disk of an instance really stands on.
//
// For a running instance it asks three witnesses: QEMU's own block graph,
// libvirt's XML, and the headers of the images. Where they disagree, the
// disagreement is part of the answer, and a migration stops at it. For a
// stopped instance the headers alone speak.
package inspect
