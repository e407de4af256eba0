package cleanup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
)

// ErrRuns says that the instance has a process: nothing of it may be touched.
var ErrRuns = errors.New("its process lives")

const (
	// targetTimeout bounds the disconnection of one target: one that hangs, its
	// network being down say, must not keep the others connected.
	targetTimeout = 30 * time.Second
	// youngest is how old what a write seems to have left has to be.
	youngest = time.Minute
)

// Targets disconnects storage endpoints; what is not connected is success.
type Targets interface {
	Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}

// Cleaner cleans up after instances. It shares nothing between two of them, so
// any number may be cleaned up after at the same time; of one instance, only
// one call at a time: its lock is the caller's.
type Cleaner struct {
	Dir     string // where notes are kept: DIR/PROJECT/NAME.json
	Records record.Dir
	Targets Targets
	// Runs tells whether the instance has a process on this host.
	Runs func(name, uuid string) (bool, error)
	Log  *slog.Logger
	Now  func() time.Time
	// Draining: nothing is started here any more, so an instance that is to run
	// and has no process has no use for what it shares with another.
	Draining bool
}

// Clean does all that is owed to the instance, and takes the note back when it
// is done. It returns every failure, joined, and the note stays then; ErrRuns,
// with nothing touched, while the instance has a process. Doing it again does
// no harm. ctx bounds it as a whole.
func (c Cleaner) Clean(ctx context.Context, n Note) error {
	if runs, err := c.Runs(n.Name, n.UUID); err != nil {
		return fmt.Errorf("whether %q still runs is not known: %w", n.Ref(), err)
	} else if runs {
		return fmt.Errorf("cleaning up after %q: %w", n.Ref(), ErrRuns)
	}
	failed := c.steps(ctx, n)
	if failed == nil {
		return c.Forget(n.Ref())
	}
	n.Failure = failed.Error()
	return errors.Join(failed, c.Owe(n))
}

func (c Cleaner) steps(ctx context.Context, n Note) error {
	rec, err := c.Records.Of(n.Ref(), n.UUID)
	if errors.Is(err, record.ErrNotFound) {
		// Of an instance that Wherry never managed, nothing is owed.
		return c.Records.Tidy(n.Ref(), c.Now().Add(-youngest))
	}
	if err != nil {
		return err
	}
	return errors.Join(
		c.disconnect(ctx, rec),
		c.Records.Tidy(n.Ref(), c.Now().Add(-youngest)),
		c.writePower(n),
	)
}

// disconnect disconnects every target of the record but those that another
// instance of this host has a use for.
func (c Cleaner) disconnect(ctx context.Context, rec api.Record) error {
	if len(rec.Targets) == 0 {
		return nil
	}
	others := c.others(rec)
	var errs []error
	for _, t := range rec.Targets {
		if user, used := others.user(t); used {
			c.Log.Info("a target stays connected", "instance", rec.Name, "type", t.Type, "for", user)
			continue
		}
		errs = append(errs, c.disconnectOne(ctx, t))
	}
	return errors.Join(errs...)
}

func (c Cleaner) disconnectOne(ctx context.Context, t api.Target) error {
	ctx, cancel := context.WithTimeout(ctx, targetTimeout)
	defer cancel()
	if _, err := c.Targets.Modify(ctx, api.TargetsRequest{Targets: []api.Target{t}}); err != nil {
		return fmt.Errorf("a target of type %s stays connected: %w", t.Type, err)
	}
	return nil
}

// others are the records of the other instances that have a target of this one
// and run, or are about to: the record says so before the process exists.
type others []api.Record

func (c Cleaner) others(rec api.Record) others {
	all, err := c.Records.List()
	if err != nil {
		c.Log.Warn("some records cannot be read; their targets are not known", "error", err)
	}
	return slices.DeleteFunc(all, func(r api.Record) bool {
		if r.UUID == rec.UUID || !slices.ContainsFunc(rec.Targets, func(t api.Target) bool { return has(r, t) }) {
			return true
		}
		if r.PowerState == "running" && !c.Draining {
			return false
		}
		// Last: all of the host's processes may be looked at for it.
		runs, err := c.Runs(r.Name, r.UUID)
		return err == nil && !runs
	})
}

func (o others) user(t api.Target) (string, bool) {
	for _, r := range o {
		if has(r, t) {
			return r.Name, true
		}
	}
	return "", false
}

func has(r api.Record, t api.Target) bool {
	return slices.ContainsFunc(r.Targets, func(x api.Target) bool { return same(x, t) })
}

// same: the login is no part of what a target is.
func same(a, b api.Target) bool {
	a.CHAP, b.CHAP = nil, nil
	return reflect.DeepEqual(a, b)
}

// writePower reads the record anew: what it says of the rest may have changed.
func (c Cleaner) writePower(n Note) error {
	if n.PowerState == "" {
		return nil
	}
	rec, err := c.Records.Of(n.Ref(), n.UUID)
	if err != nil {
		return err
	}
	if rec.PowerState == n.PowerState {
		return nil
	}
	rec.PowerState, rec.UpdatedAt = n.PowerState, c.Now().UTC()
	return c.Records.Write(rec)
}
