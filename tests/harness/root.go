package harness

import "path/filepath"

// Root is where this machine sees the host's file system as the host sees it, to watch what happens there; "" where the
// host is not of this machine.
func (h *Host) Root() string {
	namespace, err := h.lab.namespace(h.Name)
	if err != nil {
		return ""
	}
	return filepath.Join(filepath.Dir(filepath.Dir(namespace)), "root")
}
