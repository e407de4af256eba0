package api

import "time"

// States of a template copy.
const (
	CopyPending     = "pending"
	CopyDownloading = "downloading"
	CopySyncing     = "syncing"
	CopyVerifying   = "verifying"
	CopyReady       = "ready"
	CopyFailed      = "failed"
	CopyMissing     = "missing"
)

// TemplateRequest registers a template.
type TemplateRequest struct {
	ID             string            `json:"id"`
	URL            string            `json:"url"`
	Checksum       string            `json:"checksum"`
	Format         string            `json:"format"`
	Pool           string            `json:"pool,omitempty"`
	DirectDownload bool              `json:"direct_download"`
	Headers        map[string]string `json:"headers,omitempty"`
	SyncFrom       string            `json:"sync_from,omitempty"`
}

// Template is an immutable base image. RemovedAt is set on a tombstone: the
// template is gone but its flags are kept.
type Template struct {
	ID             string         `json:"id"`
	URL            string         `json:"url"`
	Checksum       string         `json:"checksum"`
	Format         string         `json:"format"`
	Pool           string         `json:"pool"`
	DirectDownload bool           `json:"direct_download"`
	SyncFrom       string         `json:"sync_from,omitempty"`
	Digest         string         `json:"digest,omitempty"`
	VirtualSize    int64          `json:"virtual_size,omitempty"`
	Size           int64          `json:"size,omitempty"`
	RemovedAt      *time.Time     `json:"removed_at,omitempty"`
	Copies         []TemplateCopy `json:"copies"`
	Refs           []TemplateRef  `json:"refs"`
}

// TemplateCopy is a template on one pool of this host. Progress is 0 to 100.
type TemplateCopy struct {
	Pool     string `json:"pool"`
	Path     string `json:"path,omitempty"`
	State    string `json:"state"`
	Progress int    `json:"progress"`
	Message  string `json:"message,omitempty"`
	// Code and Class say why a copy failed: for programs, and whose fault it is
	// ("source", "policy", "local"). FailedSince is the first failure in a row.
	Code        string     `json:"code,omitempty"`
	Class       string     `json:"class,omitempty"`
	FailedSince *time.Time `json:"failed_since,omitempty"`
	Attempts    int        `json:"attempts"`           // since it was ready, or was told to retry
	RetryAt     *time.Time `json:"retry_at,omitempty"` // absent: not by itself
	// Origin is where the bytes come from, or came from. BytesTotal is -1 while
	// it is not known.
	Origin     string    `json:"origin,omitempty"`
	BytesDone  int64     `json:"bytes_done"`
	BytesTotal int64     `json:"bytes_total"`
	Allocated  int64     `json:"allocated"` // bytes on disk
	UpdatedAt  time.Time `json:"updated_at"`
}

// Headers of a template's content: what the agent that sends it has registered
// it with, and how many bytes its file takes there, which is less than its size
// where it has holes. The ETag is the digest, in quotes.
const (
	HeaderFormat    = "Wherry-Format"
	HeaderChecksum  = "Wherry-Checksum"
	HeaderAllocated = "Wherry-Allocated"
)

// Who knows of a template ref: the store, the instance's real chain, or both.
const (
	RefRecorded = "recorded"
	RefFound    = "found"
	RefBoth     = "both"
)

// TemplateRef says that a volume stands on a template copy. Known is one of
// the constants; "recorded" and "found" are disagreements.
type TemplateRef struct {
	Known    string `json:"known"`
	Project  string `json:"project"`
	Instance string `json:"instance"`
	Disk     string `json:"disk"`
	Volume   string `json:"volume"`
	Pool     string `json:"pool"`
}

// TemplateEvent says what became of a template's copy on a pool, or of a ref to
// it: then Volume is set, and State is the ref's Known, or empty for one that
// was dropped.
type TemplateEvent struct {
	ID       string     `json:"id"`
	Pool     string     `json:"pool,omitempty"`
	State    string     `json:"state,omitempty"`
	Code     string     `json:"code,omitempty"`
	Class    string     `json:"class,omitempty"`
	Message  string     `json:"message,omitempty"`
	Attempts int        `json:"attempts,omitempty"`
	RetryAt  *time.Time `json:"retry_at,omitempty"`
	Volume   string     `json:"volume,omitempty"`
}

// TemplateList is the answer of GET /v1/templates.
type TemplateList struct {
	Templates []Template `json:"templates"`
	// Unowned are files that look like ours and belong to no template. They
	// are shown, and never deleted.
	Unowned []UnownedFile `json:"unowned"`
}

// UnownedFile is a file or folder in a pool that bears a name as Wherry gives
// them and is part of no copy: left by a crash, by another agent that has the
// same storage, or moved aside.
type UnownedFile struct {
	Pool       string    `json:"pool"`
	Path       string    `json:"path"`
	Kind       string    `json:"kind"`  // "template", "partial", "foreign"
	Bytes      int64     `json:"bytes"` // on disk
	ModifiedAt time.Time `json:"modified_at"`
}
