package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/volume"
)

// DefaultPowerFlexRoot is where udev names the volumes that the PowerFlex
// driver (SDC) has mapped.
const DefaultPowerFlexRoot = "/dev/disk/by-id"

// pollInterval is how often the volume's name is looked for after a rescan.
const pollInterval = 200 * time.Millisecond

// PowerFlex connects volumes that the storage system has mapped to this host:
// after a rescan the driver makes a block device and udev names it. The driver
// is proprietary; tests use a script in its place, so the order of events is
// tested, not the driver.
type PowerFlex struct {
	Runner volume.Runner
	// Root is the folder of the names; empty means DefaultPowerFlexRoot.
	Root string
	// Rescan is the command that makes the driver look for new volumes, such
	// as "/opt/emc/scaleio/sdc/bin/drv_cfg --rescan"; empty means none.
	Rescan []string
	// Detach, if given, is run with the volume's path as a last argument to
	// disconnect it. Unmapping is usually the storage system's own business.
	Detach []string
	// Timeout bounds rescan and wait together; 0 means DefaultTimeout.
	Timeout time.Duration
	// Tick starts a ticker and returns its channel and how to stop it; nil
	// means a real one.
	Tick func(time.Duration) (<-chan time.Time, func())
}

var (
	_ Connector = PowerFlex{}
	_ Prober    = PowerFlex{}
	_ Sizer     = PowerFlex{}
)

var hexID = regexp.MustCompile(`^[0-9a-f]{1,32}$`)

// path is the by-id name of a volume. The driver writes identifiers in lower
// case, management tools do not always.
func (c PowerFlex) path(t Target) (string, error) {
	system, vol := strings.ToLower(t.SystemID), strings.ToLower(t.VolumeID)
	if !hexID.MatchString(system) || !hexID.MatchString(vol) {
		return "", fmt.Errorf("%w: system id %q, volume id %q", ErrInvalid, t.SystemID, t.VolumeID)
	}
	root := c.Root
	if root == "" {
		root = DefaultPowerFlexRoot
	}
	return filepath.Join(root, "emc-vol-"+system+"-"+vol), nil
}

// Connect returns the volume's by-id path once it leads to a device, rescanning
// first if it does not yet. A volume that never appears fails with
// context.DeadlineExceeded naming the path, a rescan with its own words.
func (c PowerFlex) Connect(ctx context.Context, t Target) (string, error) {
	path, err := c.path(t)
	if err != nil {
		return "", err
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout,
		fmt.Errorf("%q did not appear within %s: %w", path, timeout, context.DeadlineExceeded))
	defer cancel()
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	if ok, err := present(path); err != nil {
		return "", err
	} else if ok {
		return path, nil
	}
	if len(c.Rescan) > 0 {
		if _, err := c.Runner.Run(ctx, c.Rescan[0], c.Rescan[1:]...); err != nil {
			return "", err
		}
	}
	if err := c.await(ctx, path); err != nil {
		return "", err
	}
	return path, nil
}

// await polls for path: udev makes its names some time after the rescan.
func (c PowerFlex) await(ctx context.Context, path string) error {
	tick := c.Tick
	if tick == nil {
		tick = func(d time.Duration) (<-chan time.Time, func()) {
			t := time.NewTicker(d)
			return t.C, t.Stop
		}
	}
	ticks, stop := tick(pollInterval)
	defer stop()
	for {
		if ok, err := present(path); ok || err != nil {
			return err
		}
		select {
		case <-ticks:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// present says whether path leads to a volume. A name that leads nowhere yet
// is not there yet.
func present(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if m := info.Mode(); !isBlock(m) && !m.IsRegular() {
		return false, fmt.Errorf("%w: %q is a %s, not a block device", ErrInvalid, path, m.Type())
	}
	return true, nil
}

// Connected says whether the volume's name leads to a device.
func (c PowerFlex) Connected(_ context.Context, t Target) (bool, error) {
	path, err := c.path(t)
	if err != nil {
		return false, err
	}
	return present(path)
}

// Disconnect runs the Detach command if there is one and the volume is there.
func (c PowerFlex) Disconnect(ctx context.Context, t Target) error {
	path, err := c.path(t)
	if err != nil || len(c.Detach) == 0 {
		return err
	}
	if ok, err := present(path); !ok || err != nil {
		return err
	}
	_, err = c.Runner.Run(ctx, c.Detach[0], append(c.Detach[1:len(c.Detach):len(c.Detach)], path)...)
	return err
}

// VirtualSize is the size of the volume's block device in bytes.
func (c PowerFlex) VirtualSize(_ context.Context, t Target) (int64, error) {
	path, err := c.path(t)
	if err != nil {
		return 0, err
	}
	return blockSize(path)
}
