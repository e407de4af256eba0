package hostile

import "encoding/binary"

// Places in a plain image, in clusters.
const (
	cluster  = 4 << 10
	clusters = 16

	atRefTable = 1 * cluster
	atRefBlock = 2 * cluster
	atL1       = 3 * cluster
	atL2       = 4 * cluster
	atData     = 5 * cluster
	atFree     = 8 * cluster // nothing lies there

	atName = 2 << 10 // of the backing file, within the header's cluster
	end    = clusters * cluster

	copied     = 1 << 63
	compressed = 1 << 62
)

// qcow2 is an image of version 3 with small clusters. Its fields are those of
// QEMU's docs/interop/qcow2.
type qcow2 []byte

func (q qcow2) u16(at int, v uint16) { binary.BigEndian.PutUint16(q[at:], v) }
func (q qcow2) u32(at int, v uint32) { binary.BigEndian.PutUint32(q[at:], v) }
func (q qcow2) u64(at int, v uint64) { binary.BigEndian.PutUint64(q[at:], v) }

// plain is an image of 1 MiB that holds one cluster of data, after the changes.
func plain(change ...func(q qcow2)) []byte {
	q := make(qcow2, end)
	copy(q, "QFI\xfb")
	q.u32(4, 3)
	q.u32(20, 12)
	q.u64(24, 1<<20)
	q.u32(36, 1)
	q.u64(40, atL1)
	q.u64(48, atRefTable)
	q.u32(56, 1)
	q.u32(96, 4)
	q.u32(100, 112)
	q.u64(atRefTable, atRefBlock)
	for i := range 6 {
		q.u16(atRefBlock+2*i, 1)
	}
	q.u64(atL1, copied|atL2)
	q.u64(atL2, copied|atData)
	copy(q[atData:], "data")
	for _, fn := range change {
		fn(q)
	}
	return q
}

// extension adds a header extension behind those that are there.
func (q qcow2) extension(kind uint32, data []byte) {
	at := 112
	if q[7] == 2 {
		at = 72
	}
	for binary.BigEndian.Uint32(q[at:]) != 0 {
		at += 8 + int(binary.BigEndian.Uint32(q[at+4:])+7)&^7
	}
	q.u32(at, kind)
	q.u32(at+4, uint32(len(data)))
	copy(q[at+8:], data)
}

// backing names a backing file, and its format unless that is empty.
func backing(name, format string) func(q qcow2) {
	return func(q qcow2) {
		q.u64(8, atName)
		q.u32(16, uint32(len(name)))
		copy(q[atName:], name)
		if format != "" {
			q.extension(0xE2792ACA, []byte(format))
		}
	}
}

// data names an external data file, where the feature bit is set or not.
func data(name string, bit bool) func(q qcow2) {
	return func(q qcow2) {
		if bit {
			q[79] |= 4
		}
		if name != "" {
			q.extension(0x44415441, []byte(name))
		}
	}
}

func set64(at int, v uint64) func(q qcow2) { return func(q qcow2) { q.u64(at, v) } }
func set32(at int, v uint32) func(q qcow2) { return func(q qcow2) { q.u32(at, v) } }
