package hypervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// yankInstance is QEMU's YankInstance (qapi/yank.json).
type yankInstance struct {
	Type     string `json:"type"`
	NodeName string `json:"node-name,omitempty"`
	ID       string `json:"id,omitempty"`
}

// Yank cuts the network connections of a migration's disk copies, which a cut
// network otherwise holds for many minutes: cancelling a mirror waits for its
// dead socket. It returns how many it cut. Connections that are not a
// migration's are left alone; the guest notices nothing.
func (c *Client) Yank(ctx context.Context, name string) (n int, err error) {
	return c.yank(ctx, name, isStorageYank)
}

// YankMigration cuts the connection that carries memory and device state too.
func (c *Client) YankMigration(ctx context.Context, name string) (n int, err error) {
	return c.yank(ctx, name, func(i yankInstance) bool { return i.Type == "migration" || isStorageYank(i) })
}

// isStorageYank knows libvirt's node names for the copies of a migration.
func isStorageYank(i yankInstance) bool {
	return i.Type == "block-node" &&
		strings.HasPrefix(i.NodeName, "migration-") && strings.HasSuffix(i.NodeName, "-storage")
}

func (c *Client) yank(ctx context.Context, name string, want func(yankInstance) bool) (int, error) {
	raw, err := c.query(ctx, name, "query-yank", nil)
	if err != nil {
		return 0, err
	}
	chosen, err := parseYank(raw, want)
	if err != nil || len(chosen) == 0 {
		return 0, err
	}
	if _, err := c.query(ctx, name, "yank", map[string]any{"instances": chosen}); err != nil {
		return 0, err
	}
	return len(chosen), nil
}

func parseYank(raw []byte, want func(yankInstance) bool) ([]yankInstance, error) {
	var all []yankInstance
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("parse query-yank: %w", err)
	}
	var out []yankInstance
	for _, i := range all {
		if want(i) {
			out = append(out, i)
		}
	}
	return out, nil
}
