package hypervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kinds of what a migration has QEMU make.
const (
	RestJob    = "job"    // a mirror of a disk
	RestExport = "export" // a disk that another host may write to
	RestNode   = "node"   // a block node that leads to another host
)

// Rest is one thing that a migration has QEMU make. Libvirt removes it when
// the migration ends; where libvirt was killed meanwhile, it stays.
type Rest struct {
	Kind, ID string
}

// Rests lists what QEMU still has of a migration; nothing while libvirt has a
// job of the domain. Do not ask an incoming domain.
func (c *Client) Rests(ctx context.Context, name string) ([]Rest, error) {
	job, err := c.Job(ctx, name)
	if err != nil || job.Kind != JobNone {
		return nil, err
	}
	var out []Rest
	for _, kind := range []string{RestJob, RestExport, RestNode} {
		some, err := c.rests(ctx, name, kind)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

func (c *Client) rests(ctx context.Context, name, kind string) ([]Rest, error) {
	var command string
	var args any
	switch kind {
	case RestJob:
		command = "query-block-jobs"
	case RestExport:
		command = "query-block-exports"
	case RestNode:
		command, args = "query-named-block-nodes", map[string]bool{"flat": true}
	default:
		return nil, fmt.Errorf("%q is nothing that a migration leaves", kind)
	}
	raw, err := c.query(ctx, name, command, args)
	if err != nil {
		return nil, err
	}
	out, err := parseRests(kind, raw)
	if err != nil {
		return nil, fmt.Errorf("parse %s of %q: %w", command, name, err)
	}
	return out, nil
}

// parseRests takes what bears the names that libvirt gives in a migration
// (qemu_migration.c): a mirror is called after its drive, where those that a
// user asks for are "copy-TARGET-NODE", and its nodes begin with "migration-".
// An export is libvirt's for a migration or for a backup, which is a job.
func parseRests(kind string, raw []byte) ([]Rest, error) {
	var all []struct {
		Device   string `json:"device"`
		Type     string `json:"type"`
		ID       string `json:"id"`
		NodeName string `json:"node-name"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	var out []Rest
	for _, x := range all {
		r := Rest{Kind: kind}
		switch {
		case kind == RestJob && x.Type == "mirror" && strings.HasPrefix(x.Device, "drive-"):
			r.ID = x.Device
		case kind == RestExport && x.Type == "nbd":
			r.ID = x.ID
		case kind == RestNode && strings.HasPrefix(x.NodeName, "migration-"):
			r.ID = x.NodeName
		}
		if r.ID != "" {
			out = append(out, r)
		}
	}
	return out, nil
}

// endRestWait is how long QEMU is given to end a job.
const endRestWait = 10 * time.Second

// EndRest removes one of them, and returns when it has gone. The guest keeps
// its disks as they are: a mirror is cancelled, never completed. QEMU refuses
// to remove a node that something uses.
func (c *Client) EndRest(ctx context.Context, name string, r Rest) error {
	ctx, cancel := context.WithTimeout(ctx, endRestWait)
	defer cancel()
	command, args := "", any(nil)
	switch r.Kind {
	case RestJob:
		// First: cancelling waits for the connection, which may be dead.
		if _, err := c.Yank(ctx, name); err != nil {
			return err
		}
		command, args = "block-job-cancel", map[string]any{"device": r.ID, "force": true}
	case RestExport:
		command, args = "block-export-del", map[string]any{"id": r.ID, "mode": "hard"}
	case RestNode:
		command, args = "blockdev-del", map[string]any{"node-name": r.ID}
	}
	if _, err := c.query(ctx, name, command, args); err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := c.rests(ctx, name, r.Kind)
		if err != nil || !slices.Contains(left, r) {
			return err
		}
		if r.Kind == RestJob {
			// Libvirt begins its jobs so that one that has ended stays until it is
			// dismissed; one that has not ended refuses.
			_, _ = c.query(ctx, name, "job-dismiss", map[string]any{"id": r.ID})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s %q of %q is still there: %w", r.Kind, r.ID, name, context.Cause(ctx))
		}
	}
}
