package harness

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/tests/lab/guest/block"
)

// The block is copied out as a file: the image may be of any format. Of what qemu-img counts, the skipped blocks are part.
const cleanScript = `set -e; out=$(mktemp); trap 'rm -f "$out"' EXIT
qemu-img dd -f "$1" -O raw bs=4096 skip="$2" count="$(($2 + 1))" if="$0" of="$out" >/dev/null; base64 -w 0 "$out"`

// Clean tells which boot of a guest ended in order, as the disk itself says, which no guest may have open. It is "" where
// the last one did not: its power was cut.
func (h *Host) Clean(ctx context.Context, path, format string) (boot string, err error) {
	out, err := h.Exec(ctx, "qemu-img", "info", "-f", format, "--output=json", path)
	if err != nil {
		return "", err
	}
	var info struct {
		Size uint64 `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		return "", err
	}
	out, err = h.Exec(ctx, "sh", "-c", cleanScript, path, format, fmt.Sprint(block.CleanAt(info.Size/block.Size)))
	if err != nil {
		return "", err
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(out))
	if err != nil {
		return "", fmt.Errorf("clean block of %s: %w", path, err)
	}
	if len(data) != block.Size {
		return "", fmt.Errorf("clean block of %s: %d bytes", path, len(data))
	}
	b, err := block.Decode(data)
	switch {
	case errors.Is(err, block.ErrEmpty):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("clean block of %s: %w", path, err)
	case b.Kind != block.Clean:
		return "", fmt.Errorf("clean block of %s: %+v", path, b)
	}
	return b.Mark, nil
}
