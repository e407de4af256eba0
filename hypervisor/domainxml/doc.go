// Package domainxml reads, rewrites and generates libvirt domain XML. It does
// no I/O and needs no libvirt.
//
// Rewriting patches the text itself: the XML is taken apart into elements that
// know their place in it, and only what has to change is replaced. Whatever is
// not understood here, other namespaces included, stays byte for byte. Going
// through a typed model (libvirtxml) would drop what the model does not have.
package domainxml
