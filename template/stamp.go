package template

import (
	"io/fs"
	"syscall"
)

// Stamp is what a file's bytes cannot change without, short of a broken disk:
// while it is the same, nothing need be read. Times are nanoseconds since 1970.
type Stamp struct {
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime"`
	CTime int64  `json:"ctime"`
}

// StampOf gives the stamp of a file; zero where the system does not tell.
func StampOf(info fs.FileInfo) Stamp {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Stamp{}
	}
	return Stamp{Dev: st.Dev, Inode: st.Ino, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano()}
}

// IsZero tells whether the stamp was never taken.
func (s Stamp) IsZero() bool { return s == Stamp{} }
