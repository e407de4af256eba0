package template

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/wherry-kvm/wherry/template/fault"
)

// unmounted refuses a folder below which a file system was mounted when the
// copies there arrived, and is not now. What is brought meanwhile would fill
// the system's own file system, unseen as soon as the other one is back. A copy
// that was found there since shows that it is meant.
func (r *Registry) unmounted(dir string) error {
	if r.mounted(dir) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := false
	for _, t := range r.templates {
		for _, c := range t.Copies {
			switch {
			case c.Path == "" || filepath.Dir(c.Path) != dir:
			case c.Mounted:
				was = true
			case c.State == StateReady:
				return nil
			}
		}
	}
	if !was {
		return nil
	}
	return fault.New(fault.Pool, "folder %q lies on the system's own file system, and did not when its templates arrived: what belongs there is not mounted", dir)
}

// mounted compares with the root: numbers of devices change from one boot to
// the next, so that none can be remembered.
func mounted(folder string) bool {
	root, ok := deviceOf("/")
	dev, ok2 := deviceOf(folder)
	return ok && ok2 && dev != root
}

func deviceOf(path string) (uint64, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Dev, true
}
