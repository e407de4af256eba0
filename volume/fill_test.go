package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wherry-kvm/wherry/volume"
)

// compare fails unless a guest reads the same from both; a tail that only one
// of them has must be zero.
func compare(t testing.TB, a string, aFormat volume.Format, b string, bFormat volume.Format) {
	t.Helper()
	qemuImg(t, "compare", "-U", "-q", "-f", string(aFormat), "-F", string(bFormat), a, b)
}

// source builds a three-layer chain of mixed kinds with holes, zeros written
// over data, and data in every layer. It ends at an odd sector.
func source(t testing.TB, dir string) volume.Chain {
	t.Helper()
	qemuImg(t, "create", "-q", "-f", "raw", dir+"/base", fmt.Sprint(10*mib))
	write(t, "raw", dir+"/base", "write -P 1 0 3M")
	qcow2(t, dir+"/mid", fmt.Sprint(10*mib+512), "-F", "raw", "-b", "base", "-o", "cluster_size=4k")
	write(t, "qcow2", dir+"/mid", "write -P 2 2M 2M", "write -z 1M 100k")
	top := qcow2(t, dir+"/top", fmt.Sprint(10*mib+512), "-F", "qcow2", "-b", "mid", "-o", "extended_l2=on")
	write(t, "qcow2", top, "write -P 3 6M 5k", "write -P 4 10M 512")
	return walk(t, top, volume.FormatQcow2, dir)
}

func TestFill(t *testing.T) {
	specs := map[string]volume.Spec{
		"raw":            {Format: "raw", VirtualSize: 10*mib + 512},
		"raw, larger":    {Format: "raw", VirtualSize: 30*mib + 1536},
		"qcow2":          {Format: "qcow2", VirtualSize: 10*mib + 512},
		"qcow2, larger":  {Format: "qcow2", VirtualSize: 31 * mib},
		"qcow2, old":     {Format: "qcow2", VirtualSize: 10*mib + 512, Compat: "0.10", ClusterSize: 512},
		"qcow2, 2 MiB":   {Format: "qcow2", VirtualSize: 12 * mib, ClusterSize: 2 * mib},
		"qcow2 extended": {Format: "qcow2", VirtualSize: 12 * mib, ExtendedL2: true},
	}
	src := source(t, tempDir(t))
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			spec.Path = dir + "/disk"
			o := formatted(t, spec)
			var last atomic.Int64
			progress := func(done, total int64) {
				if done < last.Load() || done > total {
					t.Errorf("progress %d of %d after %d", done, total, last.Load())
				}
				last.Store(done)
			}
			if err := volume.Fill(t.Context(), src, o, spec.Format, volume.Exec{}, progress); err != nil {
				t.Fatal(err)
			}
			compare(t, src[0].Path, "qcow2", spec.Path, spec.Format)
			l, err := volume.Inspect(spec.Path, spec.Format)
			if err != nil || l.VirtualSize != spec.VirtualSize || l.BackingFile != "" {
				t.Errorf("filled volume %+v, %v", l, err)
			}
			if l.Allocated > 8*mib+6*l.ClusterSize {
				t.Errorf("%d bytes allocated for 5 MiB of data: holes were filled", l.Allocated)
			}
			if last.Load() == 0 {
				t.Error("no progress was told")
			}
			if err := o.Remove(); err != nil {
				t.Errorf("nobody may hold the volume any more: %v", err)
			}
		})
	}
}

// Only the layers that were asked for count: the frozen part of a live disk is
// its chain without the active layer.
func TestFillFromTheFrozenPart(t *testing.T) {
	dir := tempDir(t)
	frozen := source(t, dir)[1:]
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "qcow2", VirtualSize: frozen[0].VirtualSize})
	if err := volume.Fill(t.Context(), frozen, o, "qcow2", volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	compare(t, dir+"/mid", "qcow2", o.Path, "qcow2")
}

func TestFillFromOneImage(t *testing.T) {
	for _, from := range []volume.Format{"raw", "qcow2"} {
		for _, to := range []volume.Format{"raw", "qcow2"} {
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				t.Parallel()
				dir := tempDir(t)
				path := dir + "/template, of: odd name"
				qemuImg(t, "create", "-q", "-f", string(from), path, fmt.Sprint(4*mib+512))
				write(t, string(from), path, "write -P 5 1M 2M")
				o := formatted(t, volume.Spec{Path: dir + "/disk", Format: to, VirtualSize: 8 * mib})
				if err := volume.Fill(t.Context(), walk(t, path, from), o, to, volume.Exec{}, nil); err != nil {
					t.Fatal(err)
				}
				compare(t, path, from, o.Path, to)
			})
		}
	}
}

func TestFillFromABlockDevice(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	qemuImg(t, "create", "-q", "-f", "raw", dir+"/disk", "4M")
	write(t, "raw", dir+"/disk", "write -P 5 1M 2M")
	o := formatted(t, volume.Spec{Path: dir + "/copy", Format: "qcow2", VirtualSize: 4 * mib})
	if err := volume.Fill(t.Context(), walk(t, loop(t, dir+"/disk"), "raw"), o, "qcow2", volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	compare(t, dir+"/disk", "raw", o.Path, "qcow2")
}

// A template that a running instance stands on, or even writes, is no obstacle.
func TestFillWhileTheSourceIsOpen(t *testing.T) {
	dir := tempDir(t)
	path := qcow2(t, dir+"/template", "1M")
	write(t, "qcow2", path, "write -P 5 0 512k")
	socket := dir + "/nbd"
	run(t, "qemu-nbd", "--fork", "--pid-file="+dir+"/pid", "-k", socket, "-f", "qcow2", path)
	defer kill(t, dir+"/pid")
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "qcow2", VirtualSize: mib})
	if err := volume.Fill(t.Context(), walk(t, path, "qcow2"), o, "qcow2", volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	compare(t, path, "qcow2", o.Path, "qcow2")
}

// kill ends the process whose id is in the file, and waits until it is gone.
func kill(t testing.TB, pidFile string) {
	t.Helper()
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "sh", "-c", `kill "$1"; tail -s0.05 --pid="$1" -f /dev/null`, "sh", strings.TrimSpace(string(pid)))
}

func TestFillRefuses(t *testing.T) {
	shared := source(t, tempDir(t))
	tests := map[string]struct {
		prepare func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format)
		want    error
	}{
		"no layers": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			return nil, formatted(t, volume.Spec{Path: dir + "/d", Format: "raw", VirtualSize: mib}), "raw"
		}, volume.ErrUnsafe},
		"half a chain": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			return shared[:2], formatted(t, volume.Spec{Path: dir + "/d", Format: "raw", VirtualSize: 11 * mib}), "raw"
		}, volume.ErrUnsafe},
		"corrupt source": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			path := qcow2(t, dir+"/s", "1M")
			flag(t, path, 2)
			return walk(t, path, "qcow2"), formatted(t, volume.Spec{Path: dir + "/d", Format: "raw", VirtualSize: mib}), "raw"
		}, volume.ErrUnsafe},
		"data file": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			path := qcow2(t, dir+"/s", "1M", "-o", "data_file="+dir+"/data")
			return walk(t, path, "qcow2"), formatted(t, volume.Spec{Path: dir + "/d", Format: "raw", VirtualSize: mib}), "raw"
		}, volume.ErrUnsafe},
		"smaller destination": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			return shared, formatted(t, volume.Spec{Path: dir + "/d", Format: "qcow2", VirtualSize: 10 * mib}), "qcow2"
		}, volume.ErrTooSmall},
		"used raw volume": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			o := formatted(t, volume.Spec{Path: dir + "/d", Format: "raw", VirtualSize: 11 * mib})
			write(t, "raw", o.Path, "write -P 1 1M 1k")
			return shared, o, "raw"
		}, volume.ErrNotFresh},
		"used qcow2 volume": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			o := formatted(t, volume.Spec{Path: dir + "/d", Format: "qcow2", VirtualSize: 11 * mib})
			write(t, "qcow2", o.Path, "write -P 1 1M 1k")
			return shared, o, "qcow2"
		}, volume.ErrNotFresh},
		"linked volume": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			return shared, formatted(t, volume.Spec{Path: dir + "/d", Format: "qcow2", VirtualSize: 11 * mib, Backing: shared[2].Path, BackingFormat: "raw"}), "qcow2"
		}, volume.ErrNotFresh},
		"unformatted volume": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			return shared, reserve(t, dir+"/d"), "qcow2"
		}, volume.ErrNotQcow2},
		"another file in its place": {func(t *testing.T, dir string) (volume.Chain, volume.Owned, volume.Format) {
			o := formatted(t, volume.Spec{Path: dir + "/d", Format: "raw", VirtualSize: 11 * mib})
			if err := os.Rename(writeFile(t, dir+"/new", make([]byte, 11*mib)), o.Path); err != nil {
				t.Fatal(err)
			}
			return shared, o, "raw"
		}, volume.ErrNotOwned},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst, format := tt.prepare(t, tempDir(t))
			if err := volume.Fill(t.Context(), src, dst, format, volume.Exec{}, nil); !errors.Is(err, tt.want) {
				t.Errorf("fill: %v; want %v", err, tt.want)
			}
		})
	}
}

// A header that gains a backing name after it was looked at is not followed.
func TestFillReadsTheWalkedLayersOnly(t *testing.T) {
	dir := tempDir(t)
	base := qcow2(t, dir+"/base", "1M")
	write(t, "qcow2", base, "write -P 1 0 64k")
	top := qcow2(t, dir+"/top", "1M", "-F", "qcow2", "-b", base)
	src := walk(t, top, "qcow2", dir)
	want := qcow2(t, dir+"/want", "1M")
	write(t, "qcow2", want, "write -P 1 0 64k")
	secret := writeFile(t, dir+"/secret", bytes.Repeat([]byte("secret, "), mib/8))
	qemuImg(t, "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", secret, base)

	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "raw", VirtualSize: mib})
	if err := volume.Fill(t.Context(), src, o, "raw", volume.Exec{}, nil); err != nil {
		t.Fatal(err)
	}
	compare(t, want, "qcow2", o.Path, "raw")
}

// When the context ends the copy ends, and lets go of the volume.
func TestFillIsCancelled(t *testing.T) {
	dir := tempDir(t)
	src := source(t, dir)
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "qcow2", VirtualSize: 11 * mib})
	why := errors.New("the operator changed their mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	runner := interrupted{volume.Exec{}, func() { cancel(why) }}
	if err := volume.Fill(ctx, src, o, "qcow2", runner, nil); !errors.Is(err, why) {
		t.Errorf("fill: %v; want %v", err, why)
	}
	if err := o.Remove(); err != nil {
		t.Errorf("remove after the cancel: %v", err)
	}
}

// interrupted is a runner whose convert never ends by itself: it holds the
// volume open until it is killed.
type interrupted struct {
	volume.Exec
	started func()
}

func (r interrupted) Stream(ctx context.Context, _ func([]byte), _ string, args ...string) error {
	return r.Exec.Stream(ctx, func([]byte) { r.started() }, "sh", "-c", `exec 9<>"$1"; echo started; exec sleep 600`, "sh", args[len(args)-1])
}

// qemu-img's words reach the caller.
func TestFillKeepsTheCause(t *testing.T) {
	dir := tempDir(t)
	src := source(t, dir)
	o := formatted(t, volume.Spec{Path: dir + "/disk", Format: "qcow2", VirtualSize: 11 * mib})
	if err := os.Remove(dir + "/base"); err != nil {
		t.Fatal(err)
	}
	err := volume.Fill(t.Context(), src, o, "qcow2", volume.Exec{}, nil)
	var command *volume.CommandError
	if !errors.As(err, &command) || command.Name != "qemu-img convert" || command.Output == "" {
		t.Errorf("fill: %v", err)
	}
}
