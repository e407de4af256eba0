package api

import (
	"errors"
	"fmt"
	"time"
)

// MediaTypeProblem is the content type of every error answer (RFC 9457).
const MediaTypeProblem = "application/problem+json"

// Problem is an error as it crosses the wire, and the one error type that the
// agent's boundary returns. Detail is the deepest cause's own text, whole.
type Problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Code      string       `json:"code"`
	Hint      string       `json:"hint,omitempty"`
	Phase     string       `json:"phase,omitempty"`
	Disk      string       `json:"disk,omitempty"`
	Fields    []FieldError `json:"fields,omitempty"`
	Reasons   []Reason     `json:"reasons,omitempty"`
	Operation string       `json:"operation,omitempty"`
	// Queue is the place that a full destination keeps for who asks again.
	Queue *QueuePlace `json:"queue,omitempty"`
	// Sides and Commands belong to a decision that someone must take: what both
	// hosts say, and the commands that settle it.
	Sides    []SideFacts `json:"sides,omitempty"`
	Commands []string    `json:"commands,omitempty"`
	// RetryAfter is when to try again, where that is known. It crosses as the
	// header Retry-After, in whole seconds.
	RetryAfter time.Duration `json:"-"`

	cause error
}

// FieldError names one field of a request and what is wrong with it.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// Reason says why a plan is what it is, or why it is refused.
type Reason struct {
	Code   string `json:"code"`
	Disk   string `json:"disk,omitempty"`
	Detail string `json:"detail"`
}

// Error gives the code, where it happened and the cause's text.
func (p *Problem) Error() string {
	s := p.Detail
	if p.Disk != "" {
		s = fmt.Sprintf("disk %q: %s", p.Disk, s)
	}
	if p.Phase != "" {
		s = fmt.Sprintf("phase %s: %s", p.Phase, s)
	}
	return s
}

// Unwrap gives the cause, on the side where it happened; nil behind a wire.
func (p *Problem) Unwrap() error { return p.cause }

// titles holds every code that the agent uses, with its status and title.
// One table, so that a code means the same status everywhere.
var titles = map[string]struct {
	status int
	title  string
}{
	"bad-request":          {400, "The request is malformed"},
	"unauthorized":         {401, "No client certificate"},
	"forbidden":            {403, "This certificate's role may not do that"},
	"not-found":            {404, "Not found"},
	"conflict":             {409, "Conflict with the present state"},
	"busy":                 {409, "Another operation holds it"},
	"idempotency-reuse":    {409, "The idempotency key was used for another request"},
	"precondition":         {412, "A precondition does not hold"},
	"refused":              {422, "The plan is refused"},
	"no-connected-path":    {502, "The destination connected fewer paths than asked"},
	"target-failed":        {502, "A target could not be connected"},
	"peer-failed":          {502, "The peer failed"},
	"peer-unreachable":     {502, "The peer cannot be reached"},
	"libvirt-failed":       {502, "Libvirt failed"},
	"migration-failed":     {502, "The migration failed"},
	"instance-ended":       {409, "The instance has ended meanwhile"},
	"volume-lost":          {409, "A volume of the migration is gone"},
	"stalled":              {504, "No progress within the stall timeout"},
	"peer-lost":            {504, "The peer was lost"},
	"not-converging":       {504, "The guest writes memory faster than it can be sent"},
	"cancelled":            {409, "The operation was cancelled"},
	"timeout":              {504, "Out of time"},
	"libvirt-down":         {503, "Libvirt is not reachable"},
	"not-ready":            {503, "Not ready"},
	"template-failed":      {502, "The template could not be made ready"},
	"chain-unsafe":         {422, "The backing chain cannot be trusted"},
	"no-space":             {422, "Not enough space"},
	"overloaded":           {503, "As much at once as this host does"},
	"needs-decision":       {409, "Someone must decide"},
	"kept-at-source":       {409, "Settled: the instance goes on at the source"},
	"interrupted":          {502, "The agent was interrupted"},
	"internal":             {500, "The agent failed"},
	"unsupported":          {422, "Not supported"},
	"payload-too-large":    {400, "The body is too large"},
	"bad-range":            {416, "The range lies outside the content"},
	"method-not-allowed":   {405, "Method not allowed"},
	"template-ref-missing": {422, "A template reference is missing"},
}

// Codes lists every problem code, for the documentation and its test.
func Codes() []string {
	out := make([]string, 0, len(titles))
	for c := range titles {
		out = append(out, c)
	}
	return out
}

// NewProblem makes a problem of the given code. The detail may wrap a cause
// with %w. An unknown code becomes "internal": it is a bug of the caller.
func NewProblem(code, format string, args ...any) *Problem {
	t, ok := titles[code]
	if !ok {
		t, code = titles["internal"], "internal"
	}
	err := fmt.Errorf(format, args...)
	return &Problem{
		Type: "urn:wherry:error:" + code, Title: t.title, Status: t.status,
		Code: code, Detail: err.Error(), cause: errors.Unwrap(err),
	}
}

// With* return the problem with one more fact; the receiver is changed.

// WithHint adds what the operator can do.
func (p *Problem) WithHint(format string, args ...any) *Problem {
	p.Hint = fmt.Sprintf(format, args...)
	return p
}

// WithDisk adds the disk's target name.
func (p *Problem) WithDisk(disk string) *Problem { p.Disk = disk; return p }

// WithPhase adds the phase of the operation.
func (p *Problem) WithPhase(phase string) *Problem { p.Phase = phase; return p }

// WithReasons adds the reasons of a refused plan.
func (p *Problem) WithReasons(r []Reason) *Problem { p.Reasons = r; return p }

// WithQueue adds the place in a line.
func (p *Problem) WithQueue(q QueuePlace) *Problem { p.Queue = &q; return p }

// WithField adds one faulty field.
func (p *Problem) WithField(field, detail string) *Problem {
	p.Fields = append(p.Fields, FieldError{Field: field, Detail: detail})
	return p
}

// WithDecision adds what both hosts say, and the commands that settle it.
func (p *Problem) WithDecision(sides []SideFacts, commands ...string) *Problem {
	p.Sides, p.Commands = sides, commands
	return p
}

// WithOperation adds the id of the operation that it is about.
func (p *Problem) WithOperation(id string) *Problem { p.Operation = id; return p }

// AsProblem finds the problem in err's chain, or wraps err as "internal".
// It returns nil for nil.
func AsProblem(err error) *Problem {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return NewProblem("internal", "%w", err)
}

// CodeOf gives the problem code in err's chain, or "" where there is none.
func CodeOf(err error) string {
	var p *Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}
