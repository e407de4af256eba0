package hostile

import (
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/template/fault"
)

// foreigners gives files that are something else than they are declared as.
func foreigners(victim string) []Image {
	descriptor := fmt.Sprintf("version=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT %q 0\n", victim)
	qed := on(make([]byte, 1<<16), 0, "QED\x00")
	copy(qed[64:], victim)
	qcow1 := plain(set32(4, 1), backing(victim, ""))
	// of gives a file that is declared as raw, or as the format before a colon.
	of := func(name, says string, b []byte) Image {
		format := "raw"
		if before, after, found := strings.Cut(name, ":"); found {
			format, name = before, after+"-as-"+before
		}
		return Image{Name: "really-" + name, Format: format, Bytes: b, Says: says, Code: fault.NotAnImage}
	}
	text := func(s string) []byte { return []byte(s + strings.Repeat("\n", 512-len(s)%512)) }
	page := text("<!DOCTYPE html>\n<title>Log in</title>\n")
	return []Image{
		of("vmdk", "VMDK", on(disk(), 0, "KDMV\x01\x00\x00\x00")),
		of("vmdk-esx", "VMDK", on(disk(), 0, "COWD\x01\x00\x00\x00")),
		of("vmdk-sesparse", "VMDK", on(disk(), 0, "\xbe\xba\xfe\xca\x00\x00\x00\x00")),
		of("vmdk-stream-footer", "VMDK", on(disk(), -1024, "KDMV")),
		of("vmdk-descriptor", "VMDK", text("# Disk DescriptorFile\n"+descriptor)),
		of("vmdk-descriptor-untitled", "VMDK", text("# a comment\n \r\n\n"+descriptor)),
		of("vmdk-descriptor-before-zeros", "VMDK", on(make([]byte, 1<<16), 0, descriptor)),
		of("qcow2:vmdk", "VMDK", on(disk(), 0, "KDMV\x01\x00\x00\x00")),
		of("vdi", "VDI", on(disk(), 0x40, "\x7f\x10\xda\xbe\x01\x00\x01\x00")),
		of("vhd-dynamic", "VHD", on(on(disk(), 0, "conectix"), -512, "conectix")),
		of("vhd-fixed", "VHD", on(disk(), -512, "conectix\x00\x00\x00\x02")),
		of("vhd-fixed-old", "VHD", on(disk(), -511, "conectix\x00\x00\x00\x02")),
		of("vhdx", "VHDX", on(disk(), 0, "vhdxfileQ\x00E\x00M\x00U\x00")),
		of("qed", "QED", qed),
		of("qcow", "qcow image of version 1", qcow1),
		of("qcow2:qcow", "qcow image of version 1", qcow1),
		of("qcow2", "qcow2", plain()),
		of("qcow2-with-backing", "qcow2", plain(backing(victim, "raw"))),
		of("luks-1", "LUKS", on(disk(), 0, "LUKS\xba\xbe\x00\x01")),
		of("luks-2", "LUKS", on(disk(), 0, "LUKS\xba\xbe\x00\x02")),
		of("luks-2-headless", "LUKS", secondLUKS(disk())),
		of("iso", "ISO 9660", on(make([]byte, 1<<16), 32768, "\x01CD001\x01")),
		of("iso-hybrid", "ISO 9660", on(disk(), 32768, "\x01CD001\x01")),
		of("iso-high-sierra", "ISO 9660", on(make([]byte, 1<<16), 32777, "CDROM")),
		of("udf", "UDF", on(make([]byte, 1<<16), 32768, "\x00BEA01\x01")),
		of("parallels", "Parallels", on(disk(), 0, "WithoutFreeSpace")),
		of("parallels-extended", "Parallels", on(disk(), 0, "WithouFreSpacExt")),
		of("bochs", "Bochs", on(disk(), 0, "Bochs Virtual HD Image\x00")),
		of("cloop", "cloop", on(disk(), 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0\n\x00")),
		of("dmg", "DMG", on(disk(), -512, "koly\x00\x00\x00\x04")),
		of("android-sparse", "Android", on(disk(), 0, "\x3a\xff\x26\xed\x01\x00")),
		of("wim", "WIM", on(disk(), 0, "MSWIM\x00\x00\x00")),
		of("gzip", "gzip", on(disk(), 0, "\x1f\x8b\x08\x00")),
		of("qcow2:gzip", "gzip", on(disk(), 0, "\x1f\x8b\x08\x00")),
		of("xz", "xz", on(disk(), 0, "\xfd7zXZ\x00")),
		of("zstd", "zstd", on(disk(), 0, "\x28\xb5\x2f\xfd")),
		of("bzip2", "bzip2", on(disk(), 0, "BZh91AY&SY")),
		of("lz4", "lz4", on(disk(), 0, "\x04\x22\x4d\x18")),
		of("zip", "ZIP", on(disk(), 0, "PK\x03\x04")),
		of("7z", "7z", on(disk(), 0, "7z\xbc\xaf\x27\x1c")),
		of("tar", "tar", on(make([]byte, 1<<16), 257, "ustar\x0000")),
		of("ova", "OVA", on(on(make([]byte, 1<<16), 0, "appliance.ovf"), 257, "ustar  \x00")),
		of("html", "HTML", page),
		of("qcow2:html", "HTML", page),
		of("xml", "XML", text("<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>")),
		of("json", "plain text", text(fmt.Sprintf(`json:{"driver":"file","filename":%q}`, victim))),
		of("address", "plain text", text("nbd://127.0.0.1:10809/secret")),
		of("pointer", "plain text", text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")),
		of("program", "ELF", on(disk(), 0, "\x7fELF\x02\x01\x01")),
		of("nothing", "empty", nil),
		of("qcow2:nothing", "empty", nil),
		of("qcow2:zeros", "it is none", make([]byte, 1<<16)),
		of("qcow2:disk", "it is none", disk()),
		of("qcow2:three-bytes", "plain text", []byte("QFI")),
		{Name: "raw-cut-short", Format: "raw", Bytes: disk()[:1000], Says: "no multiple of 512", Code: fault.Image},
	}
}
