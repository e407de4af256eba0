package hypervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// BlockJob is one running block job of a domain.
type BlockJob struct {
	Target string // vda; "" when the job's name does not tell
	ID     string // QEMU's name of the job
	Type   string // mirror, backup, commit, stream
	Done   int64  // bytes
	Total  int64  // bytes; grows while the guest writes
	Speed  int64  // limit in bytes per second, 0 = none
	Ready  bool   // in step with the guest, only new writes follow
	Status string // QEMU's: running, ready, paused, pending, ...
	Error  string // why it failed, when QEMU says
}

// BlockJobs lists the domain's block jobs: during a migration, one for each
// disk that is being copied.
func (c *Client) BlockJobs(ctx context.Context, name string) ([]BlockJob, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	raw, err := c.query(ctx, name, "query-block-jobs", nil)
	if err != nil {
		return nil, err
	}
	jobs, err := parseBlockJobs(raw)
	if err != nil {
		return nil, fmt.Errorf("block jobs of %q: %w", name, err)
	}
	if len(jobs) == 0 {
		return nil, nil
	}
	targets, err := c.targets(ctx, name)
	if err != nil {
		return nil, err
	}
	for i := range jobs {
		jobs[i].Target = jobTarget(jobs[i].ID, targets)
	}
	return jobs, nil
}

func parseBlockJobs(raw []byte) ([]BlockJob, error) {
	var in []struct {
		Device string `json:"device"`
		Type   string `json:"type"`
		Offset int64  `json:"offset"`
		Len    int64  `json:"len"`
		Speed  int64  `json:"speed"`
		Ready  bool   `json:"ready"`
		Status string `json:"status"`
		Error  string `json:"error"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, fmt.Errorf("parse query-block-jobs: %w", err)
	}
	out := make([]BlockJob, len(in))
	for i, j := range in {
		out[i] = BlockJob{ID: j.Device, Type: j.Type, Done: j.Offset, Total: j.Len, Speed: j.Speed, Ready: j.Ready, Status: j.Status, Error: j.Error}
	}
	return out, nil
}

// jobTarget reads the disk out of libvirt's job names: "drive-ALIAS" for the
// mirrors of a migration, "copy-TARGET-NODE" and the like for the others.
func jobTarget(id string, targets map[string]string) string {
	if alias, ok := strings.CutPrefix(id, "drive-"); ok {
		return targets[alias]
	}
	for _, kind := range []string{"copy-", "commit-", "pull-", "backup-"} {
		if rest, ok := strings.CutPrefix(id, kind); ok {
			target, _, _ := strings.Cut(rest, "-")
			return target
		}
	}
	return ""
}
