package api

import "time"

// Kinds of leftovers.
const (
	LeftoverVolume  = "volume"  // a volume that was being made
	LeftoverPartial = "partial" // a download that nobody goes on with
	LeftoverProbe   = "probe"   // a small file that was looked for, or scratch space
	LeftoverFile    = "file"    // of any other name: Wherry may not have made it
)

// Leftover is a file, or a folder of a download, in a pool of the host that
// nothing of the host owns.
type Leftover struct {
	Kind       string    `json:"kind"`
	Pool       string    `json:"pool"`
	Path       string    `json:"path"`
	Bytes      int64     `json:"bytes"` // on disk
	ModifiedAt time.Time `json:"modified_at"`
	Made       bool      `json:"made"` // it has a name that only Wherry gives
	Why        string    `json:"why"`  // why it is thought to be left over
}

// LeftoverList is the answer of GET /v1/leftovers.
type LeftoverList struct {
	Leftovers []Leftover `json:"leftovers"`
}

// LeftoversDelete says which leftovers are to go, each by its whole path.
type LeftoversDelete struct {
	Paths []string `json:"paths"`
}

// LeftoversDeleted says what has gone, and what has not.
type LeftoversDeleted struct {
	Deleted []string       `json:"deleted"`
	Kept    []LeftoverKept `json:"kept"`
}

// LeftoverKept is what was not deleted, and why.
type LeftoverKept struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}
