package hypervisor

import (
	"log/slog"
	"sync"

	"libvirt.org/go/libvirt"
)

// startEventLoop registers libvirt's own event loop and turns it for the life
// of the process. It must happen before the first connection is opened, or
// that connection gets neither events nor keepalive.
var startEventLoop = sync.OnceValue(func() error {
	if err := libvirt.EventRegisterDefaultImpl(); err != nil {
		return wrap("register event loop", "", err)
	}
	go func() {
		for {
			if err := libvirt.EventRunDefaultImpl(); err != nil {
				slog.Error("libvirt event loop", "err", err) //nolint:sloglint // the loop is the process's, and no client's
				return
			}
		}
	}()
	return nil
})
