package sniff

import (
	"encoding/binary"
	"io"
)

// Kinds that more than one rule tells.
var (
	vmdk      = Kind{"vmdk", "a VMDK image (VMware)"}
	vhd       = Kind{"vhd", "a VHD image (Virtual PC, Hyper-V)"}
	luks      = Kind{"luks", "a LUKS volume (encrypted)"}
	iso       = Kind{"iso", "an ISO 9660 or UDF image (a CD or DVD)"}
	parallels = Kind{"parallels", "a Parallels image"}
	zip       = Kind{"zip", "a ZIP archive"}
	cpio      = Kind{"cpio", "a cpio archive"}
)

// magics are the marks of what could be taken for a raw image. A negative
// offset counts from the end of the file. The list only ever refuses: a
// partition table, a file system or a volume group on a whole disk is what a
// raw image is made of, and is not in it.
var magics = []struct {
	at    int
	bytes string
	kind  Kind
}{
	{0, "QED\x00", Kind{"qed", "a QED image"}},
	{0, "KDMV", vmdk},
	{0, "COWD", vmdk},
	{0, "\xbe\xba\xfe\xca\x00\x00\x00\x00", vmdk}, // seSparse
	{-1024, "KDMV", vmdk},                         // footer of a streamOptimized one
	{0, "vhdxfile", Kind{"vhdx", "a VHDX image (Hyper-V)"}},
	{0, "conectix", vhd},    // dynamic: a copy of the footer
	{-512, "conectix", vhd}, // fixed: a raw disk with a footer
	{-511, "conectix", vhd}, // and with the short footer of old versions
	{0x40, "\x7f\x10\xda\xbe", Kind{"vdi", "a VDI image (VirtualBox)"}},
	{0, "WithoutFreeSpace", parallels},
	{0, "WithouFreSpacExt", parallels},
	{0, "LUKS\xba\xbe", luks},
	{0, "Bochs Virtual HD Image", Kind{"bochs", "a Bochs image"}},
	{0, "#!/bin/sh\n#V2.0 Format", Kind{"cloop", "a cloop image (compressed loop device)"}},
	{-512, "koly", Kind{"dmg", "a DMG image (Apple)"}},
	{0, "\x3a\xff\x26\xed", Kind{"simg", "an Android sparse image"}},
	{0, "MSWIM\x00\x00\x00", Kind{"wim", "a WIM image (Windows installation)"}},
	{32769, "CD001", iso},
	{34817, "CD001", iso},
	{32777, "CDROM", iso}, // High Sierra, which came before
	{32769, "BEA01", iso},
	{34817, "NSR0", iso},
	{0, "\x1f\x8b\x08", Kind{"gzip", "gzip-compressed data"}},
	{0, "\xfd7zXZ\x00", Kind{"xz", "xz-compressed data"}},
	{0, "BZh", Kind{"bzip2", "bzip2-compressed data"}},
	{0, "\x28\xb5\x2f\xfd", Kind{"zstd", "zstd-compressed data"}},
	{0, "\x04\x22\x4d\x18", Kind{"lz4", "lz4-compressed data"}},
	{0, "LZIP", Kind{"lzip", "lzip-compressed data"}},
	{0, "\x5d\x00\x00\x80\x00\xff", Kind{"lzma", "lzma-compressed data"}},
	{0, "\x1f\x9d", Kind{"compress", "compress-ed data (.Z)"}},
	{0, "PK\x03\x04", zip},
	{0, "PK\x05\x06", zip}, // an empty one
	{0, "7z\xbc\xaf\x27\x1c", Kind{"7z", "a 7z archive"}},
	{0, "Rar!\x1a\x07", Kind{"rar", "a RAR archive"}},
	{0, "MSCF\x00\x00\x00\x00", Kind{"cab", "a CAB archive"}},
	{257, "ustar", Kind{"tar", "a tar archive (perhaps an OVA appliance)"}},
	{0, "070701", cpio},
	{0, "070702", cpio},
	{0, "070707", cpio},
	{0, "!<arch>\n", Kind{"ar", "an ar archive (perhaps a Debian package)"}},
	{0, "\xed\xab\xee\xdb", Kind{"rpm", "an RPM package"}},
	{0, "\x7fELF", Kind{"elf", "an ELF program"}},
	{0, "%PDF-", Kind{"pdf", "a PDF document"}},
}

// Qcow2 is the one kind that is also a format of templates.
const Qcow2 = "qcow2"

// qcow tells the versions apart, which share their magic.
func qcow(head []byte) (Kind, bool) {
	switch {
	case !at(head, nil, 0, "QFI\xfb"):
		return Kind{}, false
	case len(head) >= 8 && binary.BigEndian.Uint32(head[4:]) == 1:
		return Kind{"qcow", "a qcow image of version 1"}, true
	}
	return Kind{Qcow2, "a qcow2 image"}, true
}

// secondLUKS looks for the second header of LUKS 2, from which a volume opens
// although its first one is gone. It lies at a power of two from 16 KiB to
// 4 MiB. The header repeats where it lies: of a partition within a raw disk
// that is another number than where it was found.
func secondLUKS(r io.ReaderAt, size int64) (bool, error) {
	for offset := int64(16 << 10); offset <= 4<<20 && offset < size; offset <<= 1 {
		b, err := read(r, offset, min(264, size-offset))
		if err != nil {
			return false, err
		}
		if at(b, nil, 0, "SKUL\xba\xbe") && len(b) == 264 && binary.BigEndian.Uint64(b[256:]) == uint64(offset) {
			return true, nil
		}
	}
	return false, nil
}
