package hostile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Names gives those that name something outside of themselves, for a look at what
// would follow it.
func Names(victim string) []Image {
	var out []Image
	backed := func(name, says string, change ...func(q qcow2)) {
		out = append(out, refused("backing-"+name, says, plain(change...)))
	}
	backed("file", "backing file", backing(victim, "raw"))
	backed("file-guessed", "backing file", backing(victim, ""))
	backed("file-version-2", "backing file", set32(4, 2), func(q qcow2) { clear(q[72:112]) }, backing(victim, "raw"))
	backed("file-missing", "backing file", backing("/nonexistent", "qcow2"))
	backed("file-relative", "backing file", backing("../../../../../../../.."+victim, "raw"))
	backed("self", "backing file", backing("image", "qcow2"))
	backed("long", "backing file", backing("/"+strings.Repeat("n", 1022), "raw"))
	protocols := map[string]string{
		"json":        fmt.Sprintf(`json:{"driver":"raw","file":{"driver":"file","filename":%q}}`, victim),
		"json-write":  fmt.Sprintf(`json:{"driver":"blklogwrites","file":{"driver":"null-co"},"log":{"driver":"file","filename":%q}}`, victim),
		"nbd":         "nbd://127.0.0.1:10809/secret",
		"nbd-unix":    "nbd:unix:/run/secret",
		"ssh":         "ssh://root@127.0.0.1/etc/shadow",
		"http":        "http://169.254.169.254/latest/meta-data/",
		"fat":         "fat:rw:/etc",
		"file":        "file:" + victim,
		"host-device": "host_device:/dev/sda",
		"descriptor":  "fd:0",
		"iscsi":       "iscsi://127.0.0.1/iqn.2001-04.com.example/1",
		"rbd":         "rbd:pool/image",
	}
	for _, name := range slices.Sorted(maps.Keys(protocols)) {
		says := "the protocol"
		switch name {
		case "json", "json-write":
			says = "a description of block devices"
		case "file":
			says = "backing file"
		}
		backed("by-"+name, says, backing(protocols[name], "raw"))
	}
	for _, path := range []string{"/dev/sda", "/dev/mem", "/proc/self/environ", "/dev/fd/0", "/dev/stdin"} {
		backed("on"+strings.ReplaceAll(path, "/", "-"), "backing file", backing(path, "raw"))
	}
	backed("in-colours", "backing file", backing("\x1b[2J\x1b[31m/etc\u202e\x07\xff\n"+victim, "raw"))
	backed("and-data", "backing file", backing(victim, "raw"), data(victim, true))

	elsewhere := func(name, says string, change ...func(q qcow2)) {
		out = append(out, refused("data-"+name, says, plain(change...)))
	}
	elsewhere("file", "another file", data(victim, true))
	elsewhere("file-raw", "another file", data(victim, true), set64(88, 2))
	elsewhere("file-without-bit", "another file", data(victim, false))
	elsewhere("file-unnamed", "does not name", data("", true))
	elsewhere("by-json", "a description of block devices",
		data(fmt.Sprintf(`json:{"driver":"file","filename":%q}`, victim), true))
	elsewhere("by-nbd", "the protocol", data("nbd://127.0.0.1/x", true))
	return out
}
