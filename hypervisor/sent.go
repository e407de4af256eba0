package hypervisor

import (
	"context"
	"encoding/json"
	"fmt"
)

// Sent tells whether the domain's QEMU has handed the guest over to another
// host whole: from then on that one can have started it, whatever libvirt
// knows. ErrInvalidState when the domain does not run.
func (c *Client) Sent(ctx context.Context, name string) (bool, error) {
	raw, err := c.query(ctx, name, "query-migrate", nil)
	if err != nil {
		return false, err
	}
	return parseSent(raw)
}

// parseSent reads QEMU's MigrationInfo (qapi/migration.json). A process that
// came from another host says "completed" of that for as long as it has not
// sent anything itself; only who sends has figures of its memory.
func parseSent(raw []byte) (bool, error) {
	var info struct {
		Status string          `json:"status"`
		RAM    json.RawMessage `json:"ram"`
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return false, fmt.Errorf("parse query-migrate: %w", err)
	}
	return info.Status == "completed" && info.RAM != nil, nil
}
