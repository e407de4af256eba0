package volume

import (
	"fmt"
	"math/bits"
	"path/filepath"
	"strconv"
)

// DefaultClusterSize is what a qcow2 volume gets whose Spec names no cluster
// size, in bytes. It is QEMU's own default.
const DefaultClusterSize = 64 << 10

// Spec describes a destination volume.
type Spec struct {
	Path   string
	Format Format
	// VirtualSize in bytes is met exactly. It must be a number of 512-byte
	// sectors, as everything is that QEMU shows to a guest.
	VirtualSize int64
	// ClusterSize in bytes (qcow2); 0 means DefaultClusterSize.
	ClusterSize int64
	// Compat is "0.10" or "1.1" (qcow2); empty means "1.1".
	Compat     string
	ExtendedL2 bool
	// Backing is the absolute path of the backing layer (qcow2); empty means
	// a volume that stands alone. BackingFormat goes with it, always.
	Backing       string
	BackingFormat Format
}

// SpecLike is the specification of a standalone volume at path with the
// parameters of l: same virtual size and, for qcow2, same cluster size, version
// and kind of L2 entries.
func SpecLike(path string, l Layer) Spec {
	return Spec{Path: path, Format: l.Format, VirtualSize: l.VirtualSize,
		ClusterSize: l.ClusterSize, Compat: l.Compat, ExtendedL2: l.ExtendedL2}
}

// Validate says what stands against making such a volume, wrapping ErrSpec.
func (s Spec) Validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %q: "+format, append([]any{ErrSpec, s.Path}, args...)...)
	}
	s = s.withDefaults()
	switch {
	case !filepath.IsAbs(s.Path):
		return fail("path is not absolute")
	case !s.Format.known():
		return fail("format %q", s.Format)
	case s.VirtualSize <= 0 || s.VirtualSize%sectorSize != 0:
		return fail("virtual size %d is not a positive number of %d-byte sectors", s.VirtualSize, sectorSize)
	case s.Format == FormatRaw && (s.Backing != "" || s.BackingFormat != ""):
		return fail("a raw volume has no backing layer")
	case s.Format == FormatRaw:
		return nil
	case bits.OnesCount64(uint64(s.ClusterSize)) != 1 || s.ClusterSize < 1<<minClusterBits || s.ClusterSize > 1<<maxClusterBits:
		return fail("cluster size %d", s.ClusterSize)
	case s.Compat != "0.10" && s.Compat != "1.1":
		return fail("compat %q", s.Compat)
	case s.ExtendedL2 && (s.Compat == "0.10" || s.ClusterSize < 16<<10):
		return fail("extended L2 entries need compat 1.1 and clusters of 16 KiB")
	case (s.Backing == "") != (s.BackingFormat == ""):
		return fail("backing layer and backing format go together")
	case s.Backing == "":
		return nil
	case !filepath.IsAbs(s.Backing) || len(s.Backing) > maxBackingName:
		return fail("backing layer %q is not an absolute path of at most %d bytes", s.Backing, maxBackingName)
	case s.Backing == s.Path:
		return fail("backing layer is the volume itself")
	case !s.BackingFormat.known():
		return fail("backing format %q", s.BackingFormat)
	}
	return nil
}

func (s Spec) withDefaults() Spec {
	if s.Format == FormatQcow2 && s.ClusterSize == 0 {
		s.ClusterSize = DefaultClusterSize
	}
	if s.Format == FormatQcow2 && s.Compat == "" {
		s.Compat = "1.1"
	}
	return s
}

// createArgs is the qemu-img command line for a valid qcow2 Spec. -u keeps
// qemu-img from opening the backing layer, and with it whatever that refers to;
// the caller has looked at the layer itself.
func (s Spec) createArgs() []string {
	s = s.withDefaults()
	l2 := "off"
	if s.ExtendedL2 {
		l2 = "on"
	}
	options := "compat=" + s.Compat + ",cluster_size=" + strconv.FormatInt(s.ClusterSize, 10) + ",preallocation=off,lazy_refcounts=off"
	if s.Compat != "0.10" {
		options += ",extended_l2=" + l2
	}
	args := []string{"create", "-q", "-f", string(s.Format), "-o", options}
	if s.Backing != "" {
		args = append(args, "-u", "-b", s.Backing, "-F", string(s.BackingFormat))
	}
	return append(args, s.Path, strconv.FormatInt(s.VirtualSize, 10))
}
