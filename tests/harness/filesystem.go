package harness

import (
	"context"
	"fmt"
)

// fileSystemScript makes a file system in a file of the host's run folder, which is not one of its pools, and a pool of it.
const fileSystemScript = `
set -e
file=/run/wherry/$1.img
rm -f "$file" && truncate -s "$3" "$file" && "mkfs.$2" -q "$file"
mkdir -p "/srv/$1" && mount -o loop "$file" "/srv/$1"
rm -rf "/srv/$1/lost+found"
virsh -q pool-define-as "$1" dir --target "/srv/$1" >/dev/null && virsh -q pool-start "$1" >/dev/null`

// A folder that a test made immutable must not outlive it, nor who writes there the file system.
const noFileSystemScript = `
chattr -R -i "/srv/$1" 2>/dev/null
virsh -q pool-destroy "$1" # libvirt gives up by itself one that it cannot read
virsh -q pool-undefine "$1"
umount -l "/srv/$1" && rm -f "/run/wherry/$1.img" && rmdir "/srv/$1"`

// FileSystem gives the host a pool on a file system of its own: "ext4", or "xfs", which takes 300 MiB at least. Sizes are
// bytes. It returns the pool's folder, which is the root of the file system.
func (h *Host) FileSystem(ctx context.Context, pool, kind string, size int64) (string, error) {
	// One that an interrupted test has left is in the way.
	_ = h.EndFileSystem(ctx, pool)
	if _, err := h.Exec(ctx, "sh", "-c", fileSystemScript, "sh", pool, kind, fmt.Sprint(size)); err != nil {
		return "", fmt.Errorf("a file system for pool %q of host %s: %w", pool, h.Name, err)
	}
	return "/srv/" + pool, nil
}

// EndFileSystem takes away what FileSystem made.
func (h *Host) EndFileSystem(ctx context.Context, pool string) error {
	if _, err := h.Exec(ctx, "sh", "-c", noFileSystemScript, "sh", pool); err != nil {
		return fmt.Errorf("the file system of pool %q of host %s: %w", pool, h.Name, err)
	}
	return nil
}

// Immutable makes a folder of the host immutable (chattr +i), or mutable again.
func (h *Host) Immutable(ctx context.Context, folder string, immutable bool) error {
	_, err := h.Exec(ctx, "chattr", map[bool]string{true: "+i", false: "-i"}[immutable], folder)
	return err
}
