package hypervisor

import "context"

// SetCopySpeed limits a running disk copy, in bytes per second; 0 = no limit. id
// is QEMU's name of the block job. QEMU is told itself: libvirt takes no change
// of a block job while the domain migrates, and does not look at the limit of a
// copy that it has begun.
func (c *Client) SetCopySpeed(ctx context.Context, name, id string, bytes int64) error {
	_, err := c.query(ctx, name, "block-job-set-speed", struct {
		Device string `json:"device"`
		Speed  int64  `json:"speed"`
	}{id, max(bytes, 0)})
	return err
}
