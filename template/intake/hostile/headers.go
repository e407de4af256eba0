package hostile

import (
	"fmt"
	"strings"
)

// headers gives images whose header contradicts itself, or was cut.
func headers() []Image {
	const bad = "invalid qcow2 header"
	out := []Image{
		refused("version-0", "version 0", plain(set32(4, 0))),
		refused("version-4", "version 4", plain(set32(4, 4))),
		refused("clusters-of-256-bytes", bad, plain(set32(20, 8))),
		refused("clusters-of-4-mebibytes", bad, plain(set32(20, 22))),
		refused("clusters-beyond-a-shift", bad, plain(set32(20, 0xffffffff))),
		refused("header-short", bad, plain(set32(100, 96))),
		refused("header-long", bad, plain(set32(100, 0xfffffff8))),
		refused("header-odd", bad, plain(set32(100, 105))),
		refused("refcounts-of-128-bits", bad, plain(set32(96, 7))),
		refused("compression-bit-alone", bad, plain(set64(72, 8))),
		refused("compression-type-alone", bad, plain(func(q qcow2) { q[104] = 1 })),
		refused("compression-unknown", bad, plain(set64(72, 8), func(q qcow2) { q[104] = 2 })),
		refused("subclusters-in-small-clusters", bad, plain(set64(72, 16))),
		refused("backing-name-past-the-cluster", bad, plain(set64(8, cluster+1), set32(16, 4))),
		refused("backing-name-over-the-cluster", bad, plain(set64(8, cluster-2), set32(16, 4))),
		refused("backing-name-in-the-header", bad, plain(set64(8, 80), set32(16, 4))),
		refused("backing-name-too-long", bad, plain(set64(8, atName), set32(16, 1024))),
		refused("backing-name-of-gigabytes", bad, plain(set64(8, atName), set32(16, 0xffffffff))),
		refused("backing-name-with-nul", bad, plain(backing("base\x00/etc/shadow", "raw"))),
		refused("backing-format-with-nul", bad, plain(func(q qcow2) { q.extension(0xE2792ACA, []byte("raw\x00qcow2")) })),
		refused("data-name-twice", bad, plain(data("a", true), data("b", true))),
		refused("data-name-with-nul", bad, plain(data("a\x00b", true))),
		refused("data-name-too-long", bad, plain(data(strings.Repeat("d", 1024), true))),
		refused("extension-of-gigabytes", bad, plain(set64(112, 0x12345678_ffffffff))),
		refused("extension-over-the-cluster", bad, plain(set64(112, 0x12345678_00001000))),
	}
	for _, n := range []int{4, 20, 71, 72, 103} {
		out = append(out, refused(fmt.Sprintf("cut-to-%d-bytes", n), "cut short", plain()[:n]))
	}
	out = append(out, refused("cut-after-the-header", "the file's 112 bytes", plain()[:112]))
	for _, n := range []int{cluster, 2 * cluster, 3 * cluster, 4 * cluster, 5 * cluster} {
		out = append(out, refused(fmt.Sprintf("cut-to-%d-clusters", n/cluster), "the file", plain()[:n]))
	}
	return out
}
