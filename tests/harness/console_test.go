package harness

import (
	"reflect"
	"testing"
)

const log = "BOOT 1f\r\ndisk vda size=67108864 next=0\nblk vda 0\nblk vdb 0\nblk vda 1\nverify t1 vda ok blocks=1 last=0 template=0 label=- seed=-\n" +
	"verify t2 vda ok blocks=2 last=1 template=2048 label=rocky9 seed=1\nblk vda 2\nverify t2 vdb BAD seq=0 empty block\nverify t2 done 2\n" +
	"verify t3 vda ok blocks=3 last=2\nIOERR vda write seq=3: input/output error\nblk vda 3"

func TestConsole(t *testing.T) {
	c := parseConsole(log)
	if got := c.Boots(); !reflect.DeepEqual(got, []string{"1f"}) {
		t.Errorf("Boots() = %q", got)
	}
	// Block 3 is not printed in full: the guest may be about to print 31.
	for disk, want := range map[string]int64{"vda": 2, "vdb": 0, "vdc": -1} {
		if got := c.LastBlock(disk); got != want {
			t.Errorf("LastBlock(%s) = %d, want %d", disk, got, want)
		}
	}
	if got := c.Blocks("vda"); !reflect.DeepEqual(got, []int64{0, 1, 2}) {
		t.Errorf("Blocks(vda) = %d", got)
	}
	if got := c.Complaints(); len(got) != 2 {
		t.Errorf("Complaints() = %q, want a bad block and an I/O error", got)
	}
	if !c.Has("blk vdb 0") || c.Has("blk vdb") {
		t.Error("Has must know whole lines")
	}
}

func TestReports(t *testing.T) {
	c := parseConsole(log)
	got, done := c.reports("t2")
	want := []DiskReport{
		{Disk: "vda", OK: true, Blocks: 2, Last: 1, Template: 2048, Label: "rocky9", Seed: "1", Detail: "ok blocks=2 last=1 template=2048 label=rocky9 seed=1"},
		{Disk: "vdb", Last: -1, Detail: "BAD seq=0 empty block"},
	}
	if !done || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %t; want %+v", got, done, want)
	}
	for _, token := range []string{"t1", "t3", "t", ""} {
		if got, done := c.reports(token); done {
			t.Errorf("an answer to %q that is not whole was taken: %+v", token, got)
		}
	}
}
