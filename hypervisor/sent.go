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
	mark, err := c.SentMark(ctx, name)
	return mark != "", err
}

// SentMark is Sent with a mark of that handover, "" where there was none. A QEMU
// whose guest went on here all the same tells of it until its next migration
// sends memory, which may be hours after that has begun.
func (c *Client) SentMark(ctx context.Context, name string) (mark string, err error) {
	raw, err := c.query(ctx, name, "query-migrate", nil)
	if err != nil {
		return "", err
	}
	return parseSent(raw)
}

// parseSent reads QEMU's MigrationInfo (qapi/migration.json). A process that
// came from another host says "completed" of that for as long as it has not
// sent anything itself; only who sends has figures of its memory. Those of what
// is over do not change.
func parseSent(raw []byte) (mark string, err error) {
	var info struct {
		Status string `json:"status"`
		Setup  int64  `json:"setup-time"` // this and the next: milliseconds
		Total  int64  `json:"total-time"`
		RAM    *struct {
			Transferred int64 `json:"transferred"`
			Normal      int64 `json:"normal"`
		} `json:"ram"`
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return "", fmt.Errorf("parse query-migrate: %w", err)
	}
	if info.Status != "completed" || info.RAM == nil {
		return "", nil
	}
	return fmt.Sprintf("%d-%d-%d-%d", info.Setup, info.Total, info.RAM.Transferred, info.RAM.Normal), nil
}
