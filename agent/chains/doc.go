// Package chains reads what the disks of all instances of this host really
// stand on: from QEMU where an instance runs, from libvirt's definitions, and
// from the headers of the images. It is asked before a file is taken for
// unused, so whatever cannot be read is said, never passed over.
package chains
