package template

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// File is a file as a chain names it. Dev and Ino are those of the file that
// lies there, links followed; 0 where none does.
type File struct {
	Path     string
	Dev, Ino uint64
}

// FileAt looks what lies at a path.
func FileAt(path string) File {
	f := File{Path: filepath.Clean(path)}
	if info, err := os.Stat(path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			f.Dev, f.Ino = st.Dev, st.Ino
		}
	}
	return f
}

// is tells whether two names mean one file: one path, or one file by whatever
// path, such as a folder that is mounted twice.
func (f File) is(g File) bool {
	return f.Path == g.Path || f.Ino != 0 && f.Ino == g.Ino && f.Dev == g.Dev
}

// Use is what the chain of one volume leads through, as it was found. Project,
// Instance and Disk are empty for a volume that no instance of this host has.
type Use struct {
	Project, Instance, Disk string
	Volume                  string // whole path of the active layer
	Layers                  []File // the volume itself first
}

// On tells whether the volume stands on the file.
func (u Use) On(f File) bool { return slices.ContainsFunc(u.Layers, f.is) }

// Chains is what the volumes of this host stand on, as it was found, whatever
// the store says of it.
type Chains struct {
	Uses []Use
	// Gone are volumes that were asked for and are not there, in folders that
	// are.
	Gone []string
	// Unread names, for people, what could not be read. While there is any, a
	// file that nothing seems to stand on may still be in use.
	Unread []string
}

// On gives the uses of a file.
func (c Chains) On(f File) []Use {
	var out []Use
	for _, u := range c.Uses {
		if u.On(f) {
			out = append(out, u)
		}
	}
	return out
}
