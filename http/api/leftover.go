package api

import "time"

// Kinds of leftovers.
const (
	LeftoverVolume  = "volume"  // a volume that was being made
	LeftoverPartial = "partial" // a download that nobody goes on with
	LeftoverProbe   = "probe"   // a small file that was looked for, or scratch space
	LeftoverFile    = "file"    // of any other name: Wherry may not have made it
	LeftoverCopy    = "copy"    // a domain that an operation moved away, and that libvirt has left here
	LeftoverSecret  = "secret"  // the password of a target's login
	LeftoverJob     = "job"     // a block job of a migration in a running instance
	LeftoverExport  = "export"  // a disk of a running instance that another host may write to
	LeftoverNode    = "node"    // a block node of a migration in a running instance
)

// Leftover is what nothing of the host owns: a file, or a folder of a download,
// in a pool of the host, or what libvirt or QEMU keeps.
type Leftover struct {
	Kind string `json:"kind"`
	// ID says which one is to be deleted: the path of a file, KIND:NAME of others.
	ID         string    `json:"id"`
	Pool       string    `json:"pool"`                // of a file
	Path       string    `json:"path"`                // of a file
	Instance   string    `json:"instance,omitempty"`  // that it is, or is part of
	Operation  string    `json:"operation,omitempty"` // that made it, where that is known
	Bytes      int64     `json:"bytes"`               // on disk
	ModifiedAt time.Time `json:"modified_at"`         // or when it came; zero = not known
	Made       bool      `json:"made"`                // Wherry has made it: by its name, or by the journal
	Why        string    `json:"why"`                 // why it is thought to be left over
	// Delete says what deleting it does.
	Delete string `json:"delete"`
}

// LeftoverList is the answer of GET /v1/leftovers.
type LeftoverList struct {
	Leftovers []Leftover        `json:"leftovers"`
	Skipped   []LeftoverSkipped `json:"skipped"`
}

// LeftoverSkipped is what was not looked at: there may be more.
type LeftoverSkipped struct {
	What string `json:"what"` // "pool default"
	Why  string `json:"why"`
}

// LeftoversDelete says which leftovers are to go, each by its id.
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
