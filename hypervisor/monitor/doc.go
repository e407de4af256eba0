// Package monitor speaks to the QEMU of a domain directly, while libvirt is not
// there to do it.
//
// QEMU's monitor serves one client at a time, and that is libvirt: whoever
// comes while libvirt holds it is answered nothing. So this is for a libvirt
// that is down, each call opens the socket, says one thing and closes it, and
// libvirt finds it free when it comes back.
//
// The place of the socket is in the state that libvirt keeps of a running
// domain. Nothing here needs a network: the sockets are the host's own.
package monitor
