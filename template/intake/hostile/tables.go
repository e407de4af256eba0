package hostile

// tables gives images whose tables lie, overlap or lead to where nothing is.
func tables() []Image {
	huge := func(q qcow2) {
		q.u32(20, 16)
		q.u64(24, 4<<40)
	}
	out := []Image{
		refused("l1-of-gigabytes", "too large", plain(set32(36, 0x7fffffff))),
		refused("l1-too-small", "too small", plain(set64(24, 1<<30))),
		refused("l1-empty", "too small", plain(set32(36, 0))),
		refused("l1-past-the-end", "beyond the file", plain(set64(40, end))),
		refused("l1-far-past-the-end", "not aligned", plain(set64(40, 1<<63))),
		refused("l1-askew", "not aligned", plain(set64(40, atL1+8))),
		refused("l1-in-the-header", "lies in the header", plain(set64(40, 0))),
		refused("l1-is-the-refcount-table", "overlap", plain(set64(40, atRefTable))),
		refused("l2-past-the-end", "outside of the file", plain(set64(atL1, copied|end))),
		refused("l2-over-the-end", "outside of the file", plain(set64(atL1, copied|end-cluster))[:end-cluster/2]),
		refused("l2-askew", "outside of the file", plain(set64(atL1, copied|atL2|512))),
		refused("l2-twice", "twice", plain(set32(36, 2), set64(atL1+8, copied|atL2))),
		refused("l1-reserved-bits", "malformed", plain(set64(atL1, copied|atL2|1))),
		refused("l1-mark-without-table", "malformed", plain(set64(atL1, copied))),
		refused("data-past-the-end", "outside of the file", plain(set64(atL2, copied|end))),
		refused("data-askew", "outside of the file", plain(set64(atL2, copied|atData|512))),
		refused("data-reserved-bits", "reserved bits", plain(set64(atL2, copied|atData|2))),
		refused("data-compressed-past-the-end", "outside of the file", plain(set64(atL2, compressed|end+1))),
		refused("data-compressed-over-the-end", "outside of the file", plain(set64(atL2, compressed|15<<58|end-512))),
		refused("data-compressed-in-the-header", "outside of the file", plain(set64(atL2, compressed|112))),
		refused("data-compressed-and-copied", "compressed and marked", plain(set64(atL2, copied|compressed|atData))),
		refused("zero-flag-in-version-2", "reserved bits", plain(set32(4, 2), func(q qcow2) { clear(q[72:112]) }, set64(atL2, 1))),
		refused("refcounts-past-the-end", "beyond the file", plain(set64(48, end))),
		refused("refcounts-over-the-end", "beyond the file", plain(set64(48, end-cluster), set32(56, 2))),
		refused("refcounts-askew", "not aligned", plain(set64(48, 1))),
		refused("refcounts-in-the-header", "lies in the header", plain(set64(48, 0))),
		refused("refcounts-none", "0 clusters", plain(set32(56, 0))),
		refused("refcounts-of-gigabytes", "refcount table of", plain(set32(56, 0x7fffffff))),
		refused("refcounts-over-l1", "overlap", plain(set32(56, 3))),
		refused("refcount-block-past-the-end", "outside of the file", plain(set64(atRefTable, end))),
		refused("refcount-block-reserved-bits", "malformed", plain(set64(atRefTable, atRefBlock|1))),
		refused("virtual-size-zero", "virtual size is 0", plain(set64(24, 0))),
		refused("virtual-size-odd", "sectors", plain(set64(24, 1<<20+1))),
		refused("virtual-size-negative", "virtual size", plain(set64(24, 1<<63))),
		refused("virtual-size-exabytes", "too large", plain(set64(24, 1<<62))),
	}
	// 4 TiB: the tables fit, the policy does not allow it.
	b := make(qcow2, 6*64<<10)
	copy(b, plain(huge)[:112])
	b.u32(36, 8192)
	b.u64(40, 3*64<<10)
	b.u64(48, 64<<10)
	b.u64(64<<10, 2*64<<10)
	return append(out, refused("virtual-size-over-the-limit", "4398046511104 bytes", b))
}
