package target

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/volume"
)

// DefaultTimeout bounds how long a network target may take to answer.
const DefaultTimeout = 15 * time.Second

// imageOptions builds a value for --image-opts. A comma ends an option there,
// unless it is doubled.
func imageOptions(pairs ...[2]string) string {
	parts := make([]string, len(pairs))
	for i, p := range pairs {
		parts[i] = p[0] + "=" + strings.ReplaceAll(p[1], ",", ",,")
	}
	return strings.Join(parts, ",")
}

// probe lets qemu-img open a network image by its protocol driver and returns
// the size in bytes. objects are further arguments that come first. No format
// is probed: the protocol driver is the top of the graph.
func probe(ctx context.Context, r volume.Runner, timeout time.Duration, options string, objects ...string) (int64, error) {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s: %w", timeout, context.DeadlineExceeded))
	defer cancel()
	args := append([]string{"info", "--output=json"}, objects...)
	out, err := r.Run(ctx, "qemu-img", append(args, "--image-opts", options)...)
	if err != nil {
		return 0, err
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return 0, fmt.Errorf("qemu-img info: %w", err)
	}
	return info.Size, nil
}
