package volume_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/volume"
)

// qemuLayer is what qemu-img info and a Layer both tell.
type qemuLayer struct {
	Path          string
	Format        volume.Format
	VirtualSize   int64
	ActualSize    int64
	ClusterSize   int64
	Backing       string
	BackingFormat volume.Format
	Compat        string
	ExtendedL2    bool
	Lazy          bool
	Zstd          bool
	Encrypted     bool
	Dirty         bool
	Corrupt       bool
	DataFile      string
	Snapshots     []string
}

// oracle asks qemu-img for a chain. It leads to the files that headers name,
// which is why only the tests use it.
func oracle(t testing.TB, path string, format volume.Format) []qemuLayer {
	t.Helper()
	var infos []struct {
		Filename    string        `json:"filename"`
		Format      volume.Format `json:"format"`
		VirtualSize int64         `json:"virtual-size"`
		ActualSize  int64         `json:"actual-size"`
		ClusterSize int64         `json:"cluster-size"`
		Backing     string        `json:"backing-filename"`
		BackingFmt  volume.Format `json:"backing-filename-format"`
		Encrypted   bool          `json:"encrypted"`
		Dirty       bool          `json:"dirty-flag"`
		Snapshots   []struct {
			Name string `json:"name"`
		} `json:"snapshots"`
		Specific struct {
			Data struct {
				Compat      string `json:"compat"`
				Compression string `json:"compression-type"`
				Lazy        bool   `json:"lazy-refcounts"`
				Corrupt     bool   `json:"corrupt"`
				ExtendedL2  bool   `json:"extended-l2"`
				DataFile    string `json:"data-file"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	out := qemuImg(t, "info", "-U", "--backing-chain", "--output=json", "-f", string(format), path)
	if err := json.Unmarshal([]byte(out), &infos); err != nil {
		t.Fatal(err)
	}
	var layers []qemuLayer
	for _, i := range infos {
		d := i.Specific.Data
		l := qemuLayer{i.Filename, i.Format, i.VirtualSize, i.ActualSize, i.ClusterSize, i.Backing, i.BackingFmt, d.Compat,
			d.ExtendedL2, d.Lazy, d.Compression == "zstd", i.Encrypted, i.Dirty, d.Corrupt, d.DataFile, nil}
		for _, s := range i.Snapshots {
			l.Snapshots = append(l.Snapshots, s.Name)
		}
		layers = append(layers, l)
	}
	return layers
}

func ours(c volume.Chain) []qemuLayer {
	var layers []qemuLayer
	for _, l := range c {
		layers = append(layers, qemuLayer{l.Path, l.Format, l.VirtualSize, l.Allocated, l.ClusterSize, l.BackingFile, l.BackingFormat, l.Compat,
			l.ExtendedL2, l.LazyRefcounts, l.Zstd, l.Encrypted, l.Dirty, l.Corrupt, l.DataFile, l.SnapshotNames})
	}
	return layers
}

// agree compares our reading of a chain with QEMU's. Paths are compared as the
// files they lead to: QEMU keeps "./" and the like in them.
func agree(t testing.TB, path string, format volume.Format, roots ...string) {
	t.Helper()
	same := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Path" }, cmp.Comparer(func(a, b string) bool {
		x, errX := os.Stat(a)
		y, errY := os.Stat(b)
		return errX == nil && errY == nil && os.SameFile(x, y)
	}))
	want, got := oracle(t, path, format), ours(walk(t, path, format, roots...))
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("chain of %q (-qemu +wherry):\n%s", path, diff)
	}
}

func TestWalkAgreesWithQEMU(t *testing.T) {
	options := map[string]string{
		"v2": "compat=0.10", "v3": "compat=1.1", "lazy": "lazy_refcounts=on", "extended": "extended_l2=on",
		"extended 16k": "extended_l2=on,cluster_size=16k", "zstd": "compression_type=zstd", "refcounts of one bit": "refcount_bits=1",
		"preallocated": "preallocation=metadata", "v2 of 512": "compat=0.10,cluster_size=512",
	}
	for bits := 9; bits <= 21; bits++ {
		options[fmt.Sprintf("clusters of %d", 1<<bits)] = fmt.Sprintf("cluster_size=%d", 1<<bits)
	}
	for name, opts := range options {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			agree(t, qcow2(t, dir+"/a", "9M", "-o", opts), volume.FormatQcow2)
		})
	}
}

func TestWalkAgreesWithQEMUOnSizes(t *testing.T) {
	for _, size := range []string{"0", "512", "1M", "10486272", "1T", "64T"} {
		agree(t, qcow2(t, tempDir(t)+"/a", size), volume.FormatQcow2)
	}
	for _, size := range []int64{0, 1, 511, 512, 513, 10*mib + 512, 10*mib + 1} {
		path := writeFile(t, tempDir(t)+"/raw", nil)
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		agree(t, path, volume.FormatRaw)
	}
}

func TestWalkAgreesWithQEMUOnNames(t *testing.T) {
	for _, name := range []string{
		"base", "with space", "with:colon", "with,comma", "ünïcode-名", `quo"te\`, "new\nline", "-dash", "json:{}", "100%d", "#x",
	} {
		for _, relative := range []string{"", "./", "sub/../"} {
			t.Run(relative+name, func(t *testing.T) {
				t.Parallel()
				dir := tempDir(t)
				if err := os.Mkdir(dir+"/sub", 0o700); err != nil {
					t.Fatal(err)
				}
				backing := writeFile(t, filepath.Join(dir, name), forge())
				if relative != "" {
					backing = relative + name
				}
				agree(t, overlay(t, dir+"/top of "+name, backing, "qcow2"), volume.FormatQcow2, dir)
			})
		}
	}
}

// luks makes an encrypted image. qemu-img measures how fast it derives keys,
// and gives up where other processes take the processor from it meanwhile.
func luks(t *testing.T, path, secret string) string {
	t.Helper()
	var out []byte
	for range 20 {
		var err error
		out, err = exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,file="+secret,
			"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", path, "1M").CombinedOutput()
		if err == nil {
			return path
		}
	}
	t.Fatalf("no encrypted image in 20 attempts: %s", out)
	return ""
}

func TestWalkAgreesWithQEMUOnFeatures(t *testing.T) {
	tests := map[string]func(t *testing.T, dir string) string{
		"raw base": func(t *testing.T, dir string) string {
			qemuImg(t, "create", "-q", "-f", "raw", dir+"/base", "3M")
			return qcow2(t, dir+"/top", "5M", "-b", "base", "-F", "raw")
		},
		"three layers of three kinds": func(t *testing.T, dir string) string {
			qemuImg(t, "create", "-q", "-f", "raw", dir+"/base", "3M")
			qcow2(t, dir+"/mid", "4M", "-o", "compat=0.10", "-b", "base", "-F", "raw")
			return qcow2(t, dir+"/top", "8M", "-o", "extended_l2=on", "-b", dir+"/mid", "-F", "qcow2")
		},
		"internal snapshots": func(t *testing.T, dir string) string {
			path := qcow2(t, dir+"/a", "1M")
			for _, name := range []string{"one", "zwei mit Raum", "三"} {
				qemuImg(t, "snapshot", "-c", name, path)
			}
			return path
		},
		"internal snapshots, v2": func(t *testing.T, dir string) string {
			path := qcow2(t, dir+"/a", "1M", "-o", "compat=0.10")
			qemuImg(t, "snapshot", "-c", "one", path)
			return path
		},
		"luks": func(t *testing.T, dir string) string {
			secret := writeFile(t, dir+"/secret", []byte("passphrase"))
			return luks(t, dir+"/a", secret)
		},
		"data file": func(t *testing.T, dir string) string {
			return qcow2(t, dir+"/a", "1M", "-o", "data_file="+dir+"/data")
		},
		"dirty": func(t *testing.T, dir string) string {
			path := qcow2(t, dir+"/a", "1M", "-o", "lazy_refcounts=on")
			flag(t, path, 1)
			return path
		},
		"corrupt": func(t *testing.T, dir string) string {
			path := qcow2(t, dir+"/a", "1M")
			flag(t, path, 2)
			return path
		},
		"bitmap": func(t *testing.T, dir string) string {
			path := qcow2(t, dir+"/a", "1M")
			qemuImg(t, "bitmap", "--add", "-f", "qcow2", path, "b0")
			return path
		},
		"rebased": func(t *testing.T, dir string) string {
			qcow2(t, dir+"/long-name-of-the-first-base", "1M")
			qcow2(t, dir+"/b", "1M")
			path := qcow2(t, dir+"/a", "1M", "-b", "long-name-of-the-first-base", "-F", "qcow2")
			qemuImg(t, "rebase", "-u", "-f", "qcow2", "-b", "b", "-F", "qcow2", path)
			return path
		},
		"converted and compressed": func(t *testing.T, dir string) string {
			qemuImg(t, "create", "-q", "-f", "raw", dir+"/raw", "3M")
			write(t, "raw", dir+"/raw", "write -P 9 0 2M")
			qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", "-c", dir+"/raw", dir+"/a")
			return dir + "/a"
		},
		"resized": func(t *testing.T, dir string) string {
			path := qcow2(t, dir+"/a", "1M", "-o", "cluster_size=512")
			qemuImg(t, "resize", "-q", "-f", "qcow2", path, "1G")
			return path
		},
	}
	for name, build := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			agree(t, build(t, dir), volume.FormatQcow2, dir)
		})
	}
}

// flag sets an incompatible feature bit, as QEMU would while or after it writes.
func flag(t testing.TB, path string, bit byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{bit}, 79); err != nil {
		t.Fatal(err)
	}
}

// Chains of any make, drawn at random from a fixed seed.
func TestWalkAgreesWithQEMUOnRandomChains(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 11))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	for i := range 15 {
		dir := tempDir(t)
		path, format := filepath.Join(dir, "0"), volume.FormatQcow2
		if rnd.IntN(2) == 0 {
			format = volume.FormatRaw
			qemuImg(t, "create", "-q", "-f", "raw", path, fmt.Sprint(512*(1+rnd.IntN(9000))))
		} else {
			qcow2(t, path, fmt.Sprint(512*(1+rnd.IntN(9000))), "-o", "cluster_size="+pick("512", "4k", "64k", "2M"))
		}
		for depth := range rnd.IntN(4) {
			next := fmt.Sprint(depth + 1)
			qcow2(t, filepath.Join(dir, next), fmt.Sprint(512*(1+rnd.IntN(20000))), "-F", string(format),
				"-b", pick(path, "./"+filepath.Base(path), filepath.Base(path)),
				"-o", pick("compat=0.10", "compat=1.1", "extended_l2=on", "cluster_size=16k,lazy_refcounts=on"))
			path, format = filepath.Join(dir, next), volume.FormatQcow2
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) { agree(t, path, format, dir) })
	}
}
