package hostile

// marks gives images that say of themselves that they may not be used, or not
// by everybody.
func marks() []Image {
	snapshot := func(q qcow2) {
		q.u32(60, 1)
		q.u64(64, atFree)
		q.u64(atFree, atL1)
		q.u32(atFree+8, 1)
		q.u16(atFree+12, 1)
		q.u16(atFree+14, 4)
		copy(q[atFree+40:], "1name")
	}
	luks := func(q qcow2) {
		q.u32(32, 2)
		q.extension(0x0537BE77, append(make([]byte, 6), 0x80, 0, 0, 0, 0, 0, 0, 0, 2, 0x50))
	}
	return []Image{
		refused("encrypted-aes", "encrypted", plain(set32(32, 1))),
		refused("encrypted-luks", "encrypted", plain(luks)),
		refused("encrypted-by-extension-only", "encrypted", plain(func(q qcow2) { q.extension(0x0537BE77, make([]byte, 16)) })),
		refused("encrypted-unknown", "encryption method 3", plain(set32(32, 3))),
		refused("dirty", "dirty", plain(set64(72, 1))),
		refused("corrupt", "corrupt", plain(set64(72, 2))),
		refused("dirty-and-corrupt", "corrupt", plain(set64(72, 3))),
		refused("unknown-bit-5", "unknown incompatible features, 0x20", plain(set64(72, 1<<5))),
		refused("unknown-bit-63", "unknown incompatible features", plain(set64(72, 1<<63))),
		refused("snapshot", "1 internal snapshots", plain(snapshot)),
		refused("snapshots-beyond-count", "internal snapshots", plain(set32(60, 65537))),
		refused("snapshots-past-the-end", "snapshots", plain(set32(60, 1), set64(64, 1<<40))),
		refused("bitmaps", "persistent bitmaps", plain(set64(88, 1), func(q qcow2) { q.extension(0x23852875, make([]byte, 24)) })),
	}
}
