package hostile

import "github.com/wherry-kvm/wherry/template/fault"

// polyglots gives files that are two images at once: who examines one is shown
// something else than who uses the other.
func polyglots() []Image {
	both := func(name, format string, b []byte) Image {
		return Image{Name: "polyglot-" + name, Format: format, Bytes: b, Says: "several things at once", Code: fault.Image}
	}
	return []Image{
		both("qcow2-vdi", "qcow2", on(plain(), 0x40, "\x7f\x10\xda\xbe")),
		both("qcow2-vhd", "qcow2", on(plain(), -512, "conectix")),
		both("qcow2-old-vhd", "qcow2", on(plain(), -511, "conectix")),
		both("qcow2-vmdk-footer", "qcow2", on(plain(), -1024, "KDMV")),
		both("qcow2-dmg", "qcow2", on(plain(), -512, "koly")),
		both("qcow2-iso", "qcow2", on(plain(), 32768, "\x01CD001\x01")),
		both("qcow2-udf", "qcow2", on(plain(), 32768, "\x00BEA01\x01")),
		both("qcow2-tar", "qcow2", on(plain(), 257, "ustar\x0000")),
		both("qcow2-luks", "qcow2", secondLUKS(plain())),
		both("qcow2-vdi-as-raw", "raw", on(plain(), 0x40, "\x7f\x10\xda\xbe")),
		both("vmdk-vhd", "raw", on(on(disk(), 0, "KDMV"), -512, "conectix")),
		both("iso-vhd", "raw", on(on(disk(), 32769, "CD001"), -512, "conectix")),
		both("gzip-tar", "raw", on(on(disk(), 0, "\x1f\x8b\x08"), 257, "ustar\x0000")),
	}
}

// secondLUKS adds the second header of LUKS 2, with no first one.
func secondLUKS(b []byte) []byte {
	const at = 32 << 10
	qcow2(b).u64(at+256, at)
	return on(b, at, "SKUL\xba\xbe\x00\x02")
}
