package block

import (
	"errors"
	"testing"
)

func TestEncodeDecode(t *testing.T) {
	buf := make([]byte, Size)
	for _, want := range []Block{
		{Kind: Data, Seq: 17, Name: "vda", Mark: "0123456789abcdef"},
		{Kind: Template, Seq: 2047, Total: 2048, Name: "rocky9", Mark: "1"},
		{Kind: Data, Seq: 1 << 40, Name: "a name of exactly thirty-two by.", Mark: ""},
	} {
		want.Encode(buf)
		got, err := Decode(buf)
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

// Every bit counts: whichever byte of a block is changed, it is not taken for a good one.
func TestDecodeNoticesEveryByte(t *testing.T) {
	buf := make([]byte, Size)
	Block{Kind: Data, Seq: 3, Name: "vda"}.Encode(buf)
	for i := range buf {
		buf[i] ^= 0x10
		if _, err := Decode(buf); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d changed: got %v, want ErrCorrupt", i, err)
		}
		buf[i] ^= 0x10
	}
}

func TestDecodeEmpty(t *testing.T) {
	if _, err := Decode(make([]byte, Size)); !errors.Is(err, ErrEmpty) {
		t.Errorf("zeros: got %v, want ErrEmpty", err)
	}
	torn := make([]byte, Size)
	torn[Size-1] = 1
	if _, err := Decode(torn); !errors.Is(err, ErrCorrupt) {
		t.Errorf("zeros but for the last byte: got %v, want ErrCorrupt", err)
	}
}

func TestNewest(t *testing.T) {
	const slots = 4
	for _, test := range []struct {
		last, slot, want uint64
		written          bool
	}{
		{last: 0, slot: 0, want: 0, written: true},
		{last: 0, slot: 1},
		{last: 3, slot: 3, want: 3, written: true},
		{last: 4, slot: 0, want: 4, written: true},
		{last: 4, slot: 1, want: 1, written: true},
		{last: 10, slot: 2, want: 10, written: true},
		{last: 10, slot: 3, want: 7, written: true},
	} {
		got, written := Newest(test.last, test.slot, slots)
		if got != test.want || written != test.written {
			t.Errorf("Newest(%d, %d, %d) = %d, %t; want %d, %t", test.last, test.slot, slots, got, written, test.want, test.written)
		}
	}
}

func TestSlotsLeaveTheTemplateAlone(t *testing.T) {
	for _, blocks := range []uint64{2, 3, 16384} {
		first, count := Slots(blocks)
		if first != blocks/2 || first+count != blocks {
			t.Errorf("Slots(%d) = %d, %d", blocks, first, count)
		}
	}
}
