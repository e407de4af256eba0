package template

import (
	"maps"
	"slices"
	"time"
)

// States of a copy.
const (
	StatePending     = "pending"
	StateDownloading = "downloading"
	StateSyncing     = "syncing" // being read from a peer
	StateVerifying   = "verifying"
	StateReady       = "ready"
	StateFailed      = "failed"
	StateMissing     = "missing" // was ready; the file is gone or another one
)

// Formats of a template.
const (
	FormatQcow2 = "qcow2"
	FormatRaw   = "raw"
)

// Spec registers a template. Checksum is "sha256:" or "sha512:" and hex
// digits, over the bytes of the file. An empty Pool is the registry's default.
type Spec struct {
	ID             string
	URL            string
	Checksum       string
	Format         string
	Pool           string
	DirectDownload bool
	Headers        map[string]string
	SyncFrom       string
}

// Template is an immutable base image. Sizes are bytes. RemovedAt is set on a
// tombstone, which keeps the flags and the checksum.
type Template struct {
	ID             string `json:"id"`
	URL            string `json:"url"`
	Checksum       string `json:"checksum"`
	Format         string `json:"format"`
	Pool           string `json:"pool"`
	DirectDownload bool   `json:"direct_download"`
	SyncFrom       string `json:"sync_from,omitempty"`
	// Digest is "sha256:..." over the file, known once a copy was verified
	// (from the beginning where the checksum is one).
	Digest      string     `json:"digest,omitempty"`
	VirtualSize int64      `json:"virtual_size,omitempty"`
	Size        int64      `json:"size,omitempty"`
	RemovedAt   *time.Time `json:"removed_at,omitempty"`
	Copies      []Copy     `json:"copies"`
	// Refs is filled in for readers; the store keeps refs on their own.
	Refs []Ref `json:"refs,omitempty"`
	// Headers may be secret: they are for the download only, and must not be
	// shown.
	Headers map[string]string `json:"headers,omitempty"`
}

// Copy is a template on one pool of this host.
type Copy struct {
	Pool      string     `json:"pool"`
	Path      string     `json:"path,omitempty"`
	State     string     `json:"state"`
	Progress  int        `json:"progress"` // 0 to 100
	Message   string     `json:"message,omitempty"`
	Attempts  int        `json:"attempts"`
	RetryAt   *time.Time `json:"retry_at,omitempty"`
	UpdatedAt time.Time  `json:"updated_at"`
	// Inode is the published file's. Owned: this registry published it and may
	// delete it; false for a file that lay there already with the right bytes.
	Inode uint64 `json:"inode,omitempty"`
	Owned bool   `json:"owned,omitempty"`
	// Partial is the file being written; it was created with O_EXCL under a
	// random name. PartialInode is 0 until it exists.
	Partial      string `json:"partial,omitempty"`
	PartialInode uint64 `json:"partial_inode,omitempty"`
}

// Ref says that a volume stands on a template copy.
type Ref struct {
	Template string `json:"template"`
	Project  string `json:"project"`
	Instance string `json:"instance"`
	Disk     string `json:"disk"`
	Volume   string `json:"volume"` // whole path; a volume has one ref at most
	Pool     string `json:"pool"`   // of the copy
}

// Pool is a place on this host where copies may lie. Path is its folder.
type Pool struct {
	Name string
	Path string
}

// clone copies what the caller could change.
func (t Template) clone() Template {
	t.Copies = slices.Clone(t.Copies)
	t.Refs = slices.Clone(t.Refs)
	t.Headers = maps.Clone(t.Headers)
	return t
}

// Removed tells whether the template is a tombstone.
func (t Template) Removed() bool { return t.RemovedAt != nil }

// Ready gives the copy on a pool, if it is ready; any ready copy for pool "".
func (t Template) Ready(pool string) (Copy, bool) {
	for _, c := range t.Copies {
		if c.State == StateReady && (pool == "" || c.Pool == pool) {
			return c, true
		}
	}
	return Copy{}, false
}

// on gives the copy on a pool for changing, adding a pending one.
func (t *Template) on(pool string, now time.Time) *Copy {
	for i := range t.Copies {
		if t.Copies[i].Pool == pool {
			return &t.Copies[i]
		}
	}
	t.Copies = append(t.Copies, Copy{Pool: pool, State: StatePending, UpdatedAt: now})
	return &t.Copies[len(t.Copies)-1]
}
