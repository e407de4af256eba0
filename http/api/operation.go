package api

import (
	"encoding/json"
	"time"
)

// Statuses of an operation.
const (
	StatusPending       = "pending"
	StatusRunning       = "running"
	StatusSucceeded     = "succeeded"
	StatusFailed        = "failed"
	StatusCancelled     = "cancelled"
	StatusNeedsDecision = "needs_decision"
)

// Operation is a long job: journalled, followed, cancellable, recovered.
type Operation struct {
	ID          string          `json:"id"`
	Kind        string          `json:"kind"`
	Project     string          `json:"project"`
	Instance    string          `json:"instance,omitempty"`
	Template    string          `json:"template,omitempty"` // that it is about; then there is no instance
	Status      string          `json:"status"`
	Phase       string          `json:"phase,omitempty"`
	Progress    Progress        `json:"progress"`
	Steps       []Step          `json:"steps"`
	Result      json.RawMessage `json:"result,omitempty"`
	Error       *Problem        `json:"error,omitempty"`
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
	Cancellable bool            `json:"cancellable"`
}

// Ended tells whether the operation will not change any more by itself.
func (o Operation) Ended() bool {
	switch o.Status {
	case StatusSucceeded, StatusFailed, StatusCancelled, StatusNeedsDecision:
		return true
	}
	return false
}

// Step is one phase of an operation with what became of it.
type Step struct {
	Name      string     `json:"name"`
	Status    string     `json:"status"` // running, done, failed, undone, skipped
	StartedAt time.Time  `json:"started_at"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Detail    string     `json:"detail,omitempty"`
}

// Progress of an operation. ETA is empty while it cannot be told. Detail says,
// for people, what it waits for while nothing moves.
type Progress struct {
	Percent    float64        `json:"percent"`
	BytesDone  int64          `json:"bytes_done"`
	BytesTotal int64          `json:"bytes_total"`
	Rate       int64          `json:"rate"` // bytes per second
	ETA        *Duration      `json:"eta,omitempty"`
	Disks      []PartProgress `json:"disks,omitempty"`
	Memory     *PartProgress  `json:"memory,omitempty"`
	Detail     string         `json:"detail,omitempty"`
	// Queue is there while an operation waits for its turn.
	Queue *QueuePlace `json:"queue,omitempty"`
	// Convergence is there once a migration has passed over memory.
	Convergence *Convergence `json:"convergence,omitempty"`
}

// Directions of migrations, as a host sees them.
const (
	QueueOutgoing = "outgoing"
	QueueIncoming = "incoming"
)

// IncomingFull is the reason that a destination gives, with the code "busy",
// for receiving no more instances just now.
const IncomingFull = "incoming-full"

// QueuePlace is where an operation waits: in the line of this host (outgoing),
// or for a place at the destination (incoming). There the operations are those
// of all hosts that send to it.
type QueuePlace struct {
	Direction  string   `json:"direction"`
	Position   int      `json:"position,omitempty"`   // in that line, 1 = the next; 0 = not known
	Ahead      []string `json:"ahead,omitempty"`      // operations that wait before it, the next first
	Operations []string `json:"operations,omitempty"` // under way, whose end it waits for
}

// Convergence tells how the memory of a guest that runs on gets across: the
// last pass over it that has ended, and what was decided then.
type Convergence struct {
	Iteration   int      `json:"iteration"`    // the pass, from 1
	Remaining   int64    `json:"remaining"`    // bytes that it had to send
	DirtyRate   int64    `json:"dirty_rate"`   // bytes per second that the guest writes
	Bandwidth   int64    `json:"bandwidth"`    // bytes per second that crossed
	Throttle    int      `json:"throttle"`     // percent of its time that auto-converge holds the guest
	MaxDowntime Duration `json:"max_downtime"` // how long it may stand still at the switchover, as of now
	Action      string   `json:"action"`       // continue, raise-downtime, post-copy, pause, abort
	Reason      string   `json:"reason"`
}

// PartProgress is the progress of one disk (Target) or of the memory.
type PartProgress struct {
	Target     string `json:"target"`
	BytesDone  int64  `json:"bytes_done"`
	BytesTotal int64  `json:"bytes_total"`
}

// OperationList is the answer of GET /v1/operations.
type OperationList struct {
	Operations []Operation `json:"operations"`
}

// Event is one entry of the event stream. ID grows in journal order.
type Event struct {
	ID        uint64     `json:"id"`
	Kind      string     `json:"kind"` // "operation", "instance", "template", "host"
	At        time.Time  `json:"at"`
	Project   string     `json:"project,omitempty"`
	Instance  string     `json:"instance,omitempty"`
	Detail    string     `json:"detail,omitempty"`
	Operation *Operation `json:"operation,omitempty"`
	// Template is what an event of the kind "template" is about.
	Template *TemplateEvent `json:"template,omitempty"`
}
