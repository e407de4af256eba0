package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/tests/lab/guest/block"
)

const size = 64 * block.Size // 32 slots from block 32 on

func open(t *testing.T, path string) *disk {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	d, err := newDisk(file, "vda", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func write(t *testing.T, d *disk, count int) {
	t.Helper()
	for range count {
		if _, err := d.writeNext("boot"); err != nil {
			t.Fatal(err)
		}
	}
}

func put(t *testing.T, d *disk, at int64, b block.Block) {
	t.Helper()
	buf := make([]byte, block.Size)
	b.Encode(buf)
	if _, err := d.WriteAt(buf, at*block.Size); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, d *disk, want string) {
	t.Helper()
	if got := d.verify(); !strings.HasPrefix(got, want) {
		t.Errorf("verify: got %q, want %q", got, want)
	}
}

func TestVerifyAcrossBootsAndWraps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	d := open(t, path)
	expect(t, d, "ok blocks=0 last=-1 template=0 label=-")
	write(t, d, 20)
	expect(t, d, "ok blocks=20 last=19")
	d = open(t, path)
	if d.next != 20 {
		t.Errorf("after a boot the next block is %d, want 20", d.next)
	}
	write(t, d, 30)
	expect(t, d, "ok blocks=32 last=49")
	d = open(t, path)
	expect(t, d, "ok blocks=32 last=49")
}

func TestVerifyNotices(t *testing.T) {
	for name, test := range map[string]struct {
		harm func(t *testing.T, d *disk)
		want string
	}{
		"lost write":  {func(t *testing.T, d *disk) { put(t, d, 32, block.Block{Kind: block.Data, Seq: 0, Name: "vda"}) }, "BAD seq=32 holds WHERRYD1 0"},
		"other disk":  {func(t *testing.T, d *disk) { put(t, d, 33, block.Block{Kind: block.Data, Seq: 33, Name: "vdb"}) }, "BAD seq=33 holds"},
		"hole":        {func(t *testing.T, d *disk) { harm(t, d, make([]byte, block.Size), 40*block.Size) }, "BAD seq=8 empty block"},
		"flipped bit": {func(t *testing.T, d *disk) { harm(t, d, []byte{0xff}, 41*block.Size+99) }, "BAD seq=9 corrupt block"},
		"other template": {func(t *testing.T, d *disk) {
			put(t, d, 1, block.Block{Kind: block.Template, Seq: 1, Total: 2, Name: "r", Mark: "2"})
		}, "BAD template=1 holds"},
		"lost template":   {func(t *testing.T, d *disk) { harm(t, d, make([]byte, 2*block.Size), 0) }, "BAD template=0 empty block"},
		"nothing happens": {func(*testing.T, *disk) {}, "ok blocks=32 last=33 template=2 label=r seed=1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			d := open(t, path)
			put(t, d, 0, block.Block{Kind: block.Template, Seq: 0, Total: 2, Name: "r", Mark: "1"})
			put(t, d, 1, block.Block{Kind: block.Template, Seq: 1, Total: 2, Name: "r", Mark: "1"})
			d = open(t, path)
			write(t, d, 34)
			test.harm(t, d)
			expect(t, d, test.want)
		})
	}
}

// The clean block is there after an end in order, tells which boot ended so, and is gone once another boot has begun.
func TestCleanBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	d := open(t, path)
	if d.clean != nil {
		t.Errorf("a new disk is clean: %+v", d.clean)
	}
	write(t, d, 40)
	must(t, d.writeClean("first boot"))
	d = open(t, path)
	if d.clean == nil || d.clean.Mark != "first boot" || d.clean.Seq != 40 {
		t.Errorf("after an end in order: %+v", d.clean)
	}
	expect(t, d, "ok blocks=32 last=39")
	d = open(t, path) // the boot before ended without
	if d.clean != nil {
		t.Errorf("after an end without order: %+v", d.clean)
	}
	expect(t, d, "ok blocks=32 last=39")
}

// What was written after the clean block was not in order.
func TestCleanBlockIsLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	d := open(t, path)
	write(t, d, 3)
	must(t, d.writeClean("boot"))
	write(t, d, 1)
	expect(t, open(t, path), "BAD when opened: clean block")
}

// A template that fills its half keeps every block.
func TestCleanBlockLeavesTheTemplate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	d := open(t, path)
	for i := range int64(32) {
		put(t, d, i, block.Block{Kind: block.Template, Seq: uint64(i), Total: 32, Name: "r", Mark: "1"})
	}
	d = open(t, path)
	must(t, d.writeClean("boot"))
	expect(t, open(t, path), "ok blocks=0 last=-1 template=32")
}

func TestAgentObeys(t *testing.T) {
	for _, c := range []struct {
		line, manner, answer string
		shutdown             bool
	}{
		{`{"execute":"guest-sync", "arguments":{"id":1792}}`, "", `{"return": 1792}`, false},
		{"\xff" + `{"execute":"guest-sync-delimited", "arguments":{"id":18446744073709551615}}`, "", "\xff" + `{"return": 18446744073709551615}`, false},
		{`{"execute":"guest-ping"}`, "mute", `{"return": {}}`, false},
		{`{"execute":"guest-ping"}`, "hang", "", false},
		{`{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}`, "", "", true},
		{`{"execute":"guest-shutdown"}`, "mute", "", false},
		{`{"execute":"guest-info"}`, "", `{"error": {"class": "CommandNotFound", "desc": "not here"}}`, false},
		{`{`, "", "", false},
	} {
		if answer, shutdown := obey([]byte(c.line), c.manner); answer != c.answer || shutdown != c.shutdown {
			t.Errorf("%s of %q: %q, %v; want %q, %v", c.line, c.manner, answer, shutdown, c.answer, c.shutdown)
		}
	}
}

func TestAgentPort(t *testing.T) {
	folder := t.TempDir()
	for port, name := range map[string]string{"vport1p1": "com.redhat.spice.0", "vport1p2": agentName} {
		must(t, os.MkdirAll(filepath.Join(folder, port), 0o755))
		must(t, os.WriteFile(filepath.Join(folder, port, "name"), []byte(name+"\n"), 0o644))
	}
	if got := agentPort(folder, "/dev"); got != "/dev/vport1p2" {
		t.Errorf("got %q", got)
	}
	if got := agentPort(filepath.Join(folder, "none"), "/dev"); got != "" {
		t.Errorf("without ports: got %q", got)
	}
}

func TestWritableDisks(t *testing.T) {
	folder := t.TempDir()
	for name, attributes := range map[string][2]string{"vda": {"0", "100"}, "vdb": {"1", "100"}, "sda": {"0", "0"}, "sr0": {"0", "9"}} {
		must(t, os.Mkdir(filepath.Join(folder, name), 0o755))
		must(t, os.WriteFile(filepath.Join(folder, name, "ro"), []byte(attributes[0]+"\n"), 0o644))
		must(t, os.WriteFile(filepath.Join(folder, name, "size"), []byte(attributes[1]+"\n"), 0o644))
	}
	if got := writableDisks(folder); len(got) != 1 || !got["vda"] {
		t.Errorf("got %v, want vda alone", got)
	}
}

func TestParseOptions(t *testing.T) {
	for cmdline, want := range map[string]options{
		"":                  {pace: 50 * time.Millisecond},
		"quiet wherry.pace": {pace: 50 * time.Millisecond},
		"wherry.pace=20ms wherry.deaf=-1 wherry.dirty=8": {pace: 20 * time.Millisecond, deaf: -1, dirty: 8},
		"wherry.slow=3s wherry.agent=mute":               {pace: 50 * time.Millisecond, slow: 3 * time.Second, agent: "mute"},
	} {
		if got := parseOptions(cmdline); got != want {
			t.Errorf("%q: got %+v, want %+v", cmdline, got, want)
		}
	}
}

func TestAvailableMiB(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meminfo")
	must(t, os.WriteFile(path, []byte("MemTotal:   90000 kB\nMemFree:    50000 kB\nMemAvailable:   40960 kB\n"), 0o644))
	if got := availableMiB(path); got != 40 {
		t.Errorf("got %d, want 40", got)
	}
	if got := availableMiB(path + ".none"); got != 0 {
		t.Errorf("without the file: got %d, want 0", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// harm writes over what the disk holds.
func harm(t *testing.T, d *disk, b []byte, at int64) {
	t.Helper()
	_, err := d.WriteAt(b, at)
	must(t, err)
}
