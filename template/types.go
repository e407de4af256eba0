package template

import (
	"maps"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
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

// Spec registers a template. Checksum is "sha256:", "sha512:", "sha1:" or
// "md5:" and hex digits, over the bytes as the URL serves them. An empty Pool is the registry's default.
type Spec struct {
	ID             string
	URL            string
	Checksum       string
	Format         string
	Pool           string
	DirectDownload bool
	Headers        map[string]string
	SyncFrom       string
	// Digest is "sha256:..." of the file, where somebody knows it.
	Digest string
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
	Digest      string `json:"digest,omitempty"`
	VirtualSize int64  `json:"virtual_size,omitempty"`
	Size        int64  `json:"size,omitempty"`
	// Allocated is what the file took on disk when it last arrived here.
	Allocated int64      `json:"allocated,omitempty"`
	RemovedAt *time.Time `json:"removed_at,omitempty"`
	Copies    []Copy     `json:"copies"`
	// Refs is filled in for readers; the store keeps refs on their own.
	Refs []Ref `json:"refs,omitempty"`
	// Headers may be secret: they are for the download only, and must not be
	// shown.
	Headers map[string]string `json:"headers,omitempty"`
}

// Copy is a template on one pool of this host. Sizes are bytes.
type Copy struct {
	Pool     string `json:"pool"`
	Path     string `json:"path,omitempty"`
	State    string `json:"state"`
	Progress int    `json:"progress"` // 0 to 100
	Message  string `json:"message,omitempty"`
	// Code and Class say why the copy failed, as in package fault. Permanent:
	// it is not tried again before somebody asks for it.
	Code      string      `json:"code,omitempty"`
	Class     fault.Class `json:"class,omitempty"`
	Permanent bool        `json:"permanent,omitempty"`
	// FailedSince is the first failure in a row; nil while there was none.
	FailedSince *time.Time `json:"failed_since,omitempty"`
	Attempts    int        `json:"attempts"`           // in this row of failures, or since somebody asked
	RetryAt     *time.Time `json:"retry_at,omitempty"` // nil: not by itself
	UpdatedAt   time.Time  `json:"updated_at"`
	// Origin is where the bytes come from, or came from; it holds no secret.
	Origin string `json:"origin,omitempty"`
	// BytesDone and BytesTotal (-1: not known) tell readers of a fetch that is
	// under way. They are not stored: that would be a write for each of them.
	BytesDone  int64 `json:"-"`
	BytesTotal int64 `json:"-"`
	// Inode is the published file's. Owned: this registry published it and may
	// delete it; false for a file that lay there already with the right bytes.
	Inode uint64 `json:"inode,omitempty"`
	Owned bool   `json:"owned,omitempty"`
	// Lost: the file of Stamp was owned, and was not at its place when looked
	// for. It is owned again when it is back.
	Lost bool `json:"lost,omitempty"`
	// Mounted: the pool's folder lay on a file system of its own when the copy
	// arrived.
	Mounted bool `json:"mounted,omitempty"`
	// Stamp is how the file looked when its bytes were last known to be right.
	// It stays when the copy is lost: the copy was ready once.
	Stamp Stamp `json:"stamp,omitzero"`
	// LastUsed is when the copy arrived, or a volume last came to stand on it
	// or left it.
	LastUsed *time.Time `json:"last_used,omitempty"`
	// Collected: the file was deleted because nothing stood on it. It is
	// brought again when somebody needs it, and not by itself.
	Collected bool `json:"collected,omitempty"`
	// Allocated is what the file takes on disk, as of the last look at it.
	Allocated int64 `json:"allocated,omitempty"`
	// Partial is the private folder of the image being written; it was created
	// under a random name. PartialInode is 0 until it exists.
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
// Shared: other hosts have the same storage, and lay copies and volumes there.
type Pool struct {
	Name   string
	Path   string
	Shared bool
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

// copyOn gives the copy on a pool; one without a state where there is none.
func (t Template) copyOn(pool string) Copy {
	for _, c := range t.Copies {
		if c.Pool == pool {
			return c
		}
	}
	return Copy{Pool: pool}
}

// clearFault forgets why the copy failed, but not since when: that is until it
// is ready.
func (c *Copy) clearFault() { c.Message, c.Code, c.Class, c.Permanent = "", "", "", false }

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
