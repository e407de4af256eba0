package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// undoTimeout bounds what is undone after a failure, whose own context may be
// over already.
const undoTimeout = 30 * time.Second

// Set is the connectors of a host, by target type.
type Set map[string]Connector

// Connected is a target that has a path on this host. Index is its place in
// the request.
type Connected struct {
	Index int
	Path  string
}

// IndexError says which target of a request failed, and why.
type IndexError struct {
	Index  int
	Target Target
	Err    error
}

func (e *IndexError) Error() string {
	return fmt.Sprintf("target %d (%s): %v", e.Index, e.Target, e.Err)
}

func (e *IndexError) Unwrap() error { return e.Err }

// Connect connects all targets in order and returns one path for each. If one
// fails, those that this call connected are disconnected again, last first,
// those that were connected before stay, and the error is an *IndexError with
// the cause's own text; a failing undo is joined to it.
func (s Set) Connect(ctx context.Context, targets []Target) ([]Connected, error) {
	var out []Connected
	var fresh []int // indexes that this call connected
	for i, t := range targets {
		path, isNew, err := s.connect(ctx, t)
		if isNew && !slices.ContainsFunc(fresh, func(j int) bool { return targets[j].equal(t) }) {
			fresh = append(fresh, i)
		}
		if err != nil {
			failed := &IndexError{Index: i, Target: t, Err: err}
			return nil, join(failed, s.undo(ctx, targets, fresh))
		}
		out = append(out, Connected{Index: i, Path: path})
	}
	return out, nil
}

// connect connects one target. isNew is set as soon as there may be something
// to undo, also when the connection failed half way.
func (s Set) connect(ctx context.Context, t Target) (path string, isNew bool, err error) {
	c, ok := s[t.Type]
	if !ok {
		return "", false, fmt.Errorf("%w: %q", ErrUnknownType, t.Type)
	}
	if p, ok := c.(Prober); ok {
		before, err := p.Connected(ctx, t)
		if err != nil {
			return "", false, err
		}
		isNew = !before
	} else {
		isNew = true
	}
	path, err = c.Connect(ctx, t)
	if err == nil && path == "" {
		err = ErrNoPath
	}
	return path, isNew, err
}

func (s Set) undo(ctx context.Context, targets []Target, fresh []int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var errs []error
	for _, i := range slices.Backward(fresh) {
		if err := s.disconnect(ctx, targets[i]); err != nil {
			errs = append(errs, fmt.Errorf("undo: %w", &IndexError{Index: i, Target: targets[i], Err: err}))
		}
	}
	return errors.Join(errs...)
}

// Disconnect disconnects all targets. Each is tried, whatever becomes of the
// others; the errors are joined, each an *IndexError.
func (s Set) Disconnect(ctx context.Context, targets []Target) error {
	var errs []error
	for i, t := range targets {
		if err := s.disconnect(ctx, t); err != nil {
			errs = append(errs, &IndexError{Index: i, Target: t, Err: err})
		}
	}
	return errors.Join(errs...)
}

func (s Set) disconnect(ctx context.Context, t Target) error {
	c, ok := s[t.Type]
	if !ok {
		return fmt.Errorf("%w: %q", ErrUnknownType, t.Type)
	}
	return c.Disconnect(ctx, t)
}

// VirtualSize is the size in bytes of a connected target; 0 if its connector
// cannot tell.
func (s Set) VirtualSize(ctx context.Context, t Target) (int64, error) {
	c, ok := s[t.Type]
	if !ok {
		return 0, fmt.Errorf("%w: %q", ErrUnknownType, t.Type)
	}
	if sizer, ok := c.(Sizer); ok {
		return sizer.VirtualSize(ctx, t)
	}
	return 0, nil
}

// join keeps a lone error as it is, so that its type shows.
func join(err, undo error) error {
	if undo == nil {
		return err
	}
	return errors.Join(err, undo)
}
