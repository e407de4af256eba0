package volume_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

// xfs mounts a fresh XFS, which can share blocks between files.
func xfs(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := tempDir(t)
	image := writeFile(t, dir+"/xfs", nil)
	if err := os.Truncate(image, 400*mib); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.xfs", "-q", "-m", "reflink=1", image)
	mount := dir + "/mount"
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", "loop", image, mount)
	t.Cleanup(func() { run(t, "umount", mount) })
	return mount
}

// counting counts what is run, by command.
type counting struct {
	volume.Exec
	converts int
}

func (c *counting) Stream(ctx context.Context, line func([]byte), name string, args ...string) error {
	c.converts++
	return c.Exec.Stream(ctx, line, name, args...)
}

func TestFillSharesBlocks(t *testing.T) {
	dir := xfs(t)
	i := 0
	for name, tt := range map[string]struct {
		options  string // of the source
		spec     volume.Spec
		converts int
	}{
		"raw":                        {"", volume.Spec{Format: "raw", VirtualSize: 8 * mib}, 0},
		"raw, larger":                {"", volume.Spec{Format: "raw", VirtualSize: 20*mib + 512}, 0},
		"qcow2":                      {"compat=1.1", volume.Spec{Format: "qcow2", VirtualSize: 8 * mib}, 0},
		"qcow2, larger":              {"cluster_size=4k", volume.Spec{Format: "qcow2", VirtualSize: 1 << 30, ClusterSize: 4 * kib}, 0},
		"qcow2, extended":            {"extended_l2=on", volume.Spec{Format: "qcow2", VirtualSize: 9 * mib, ExtendedL2: true}, 0},
		"qcow2, old":                 {"compat=0.10", volume.Spec{Format: "qcow2", VirtualSize: 9 * mib, Compat: "0.10"}, 0},
		"qcow2 with other clusters":  {"cluster_size=4k", volume.Spec{Format: "qcow2", VirtualSize: 8 * mib}, 1},
		"qcow2 with lazy refcounts":  {"lazy_refcounts=on", volume.Spec{Format: "qcow2", VirtualSize: 8 * mib}, 1},
		"qcow2 of the other version": {"compat=0.10", volume.Spec{Format: "qcow2", VirtualSize: 8 * mib}, 1},
		"qcow2 into raw":             {"compat=1.1", volume.Spec{Format: "raw", VirtualSize: 8 * mib}, 1},
	} {
		i++
		t.Run(name, func(t *testing.T) {
			from := volume.FormatQcow2
			path := fmt.Sprintf("%s/template%d", dir, i)
			if tt.options == "" {
				from = volume.FormatRaw
				qemuImg(t, "create", "-q", "-f", "raw", path, "8M")
			} else {
				qcow2(t, path, "8M", "-o", tt.options)
			}
			write(t, string(from), path, "write -P 6 1M 4M")
			tt.spec.Path = fmt.Sprintf("%s/disk%d", dir, i)
			o := formatted(t, tt.spec)
			runner := &counting{}
			if err := volume.Fill(t.Context(), walk(t, path, from), o, tt.spec.Format, runner, nil); err != nil {
				t.Fatal(err)
			}
			if runner.converts != tt.converts {
				t.Errorf("%d copies by convert; want %d", runner.converts, tt.converts)
			}
			compare(t, path, from, o.Path, tt.spec.Format)
			if err := o.Verify(); err != nil {
				t.Error(err)
			}
			l, err := volume.Inspect(o.Path, tt.spec.Format)
			if err != nil || l.VirtualSize != tt.spec.VirtualSize {
				t.Errorf("filled volume %+v, %v", l, err)
			}
			if tt.spec.Format == volume.FormatQcow2 {
				qemuImg(t, "check", "-q", "-f", "qcow2", o.Path)
			}
		})
	}
}

// Sharing blocks must not share what is written later.
func TestFillBySharingIsACopy(t *testing.T) {
	dir := xfs(t)
	path := qcow2(t, dir+"/template", "8M")
	write(t, "qcow2", path, "write -P 6 1M 4M")
	digest := volume.NewDigester()
	before, err := digest.Digest(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "qcow2", VirtualSize: 8 * mib})
	if err := volume.Fill(t.Context(), walk(t, path, "qcow2"), o, "qcow2", volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	write(t, "qcow2", o.Path, "write -P 7 0 8M")
	if after, err := volume.NewDigester().Digest(t.Context(), path); err != nil || after != before {
		t.Errorf("the template changed: %s, %v", after, err)
	}
}

// Internal snapshots of a template do not come along.
func TestFillLeavesSnapshotsBehind(t *testing.T) {
	dir := xfs(t)
	path := qcow2(t, dir+"/template", "8M")
	write(t, "qcow2", path, "write -P 6 1M 4M")
	qemuImg(t, "snapshot", "-c", "one", path)
	write(t, "qcow2", path, "write -P 7 2M 1M")
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "qcow2", VirtualSize: 8 * mib})
	if err := volume.Fill(t.Context(), walk(t, path, "qcow2"), o, "qcow2", volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	compare(t, path, "qcow2", o.Path, "qcow2")
	if l, err := volume.Inspect(o.Path, "qcow2"); err != nil || l.Snapshots != 0 {
		t.Errorf("%d snapshots came along, %v", l.Snapshots, err)
	}
}
