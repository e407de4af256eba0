package harness

import (
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netns"
)

// Listen listens on an address inside the host's network ("tcp", "10.77.0.1:0"), so that a test can serve its hosts.
// It fails with errors.ErrUnsupported where the host's network is on another machine.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	return inNetwork(h, func() (net.Listener, error) { return net.Listen(network, address) })
}

// Dial connects from inside the host's network.
func (h *Host) Dial(network, address string) (net.Conn, error) {
	return inNetwork(h, func() (net.Conn, error) { return net.Dial(network, address) })
}

// inNetwork calls open on a thread of the host's network namespace: a socket belongs to the namespace it was made in.
// Addresses, not names: Go may resolve a name on another thread.
func inNetwork[T any](h *Host, open func() (T, error)) (result T, err error) {
	path, err := h.lab.namespace(h.Name)
	if err != nil {
		return result, err
	}
	target, err := netns.GetFromPath(path)
	if err != nil {
		return result, fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer func() { _ = target.Close() }() // it was only read
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with this goroutine, and no other finds itself in the wrong network.
		runtime.LockOSThread()
		if err = netns.Set(target); err == nil {
			result, err = open()
		}
	}()
	<-done
	return result, err
}
