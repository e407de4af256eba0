package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
)

func TestLineDue(t *testing.T) {
	at := time.Unix(1000, 0)
	last := shownLine{at: at, op: "running perform", tens: 3, done: 100}
	for _, test := range []struct {
		name string
		last *shownLine
		next shownLine
		want bool
	}{
		{"first", nil, last, true},
		{"nothing new", &last, shownLine{at.Add(time.Hour), "running perform", 3, 100}, false},
		{"some bytes, soon", &last, shownLine{at.Add(lineEvery - 1), "running perform", 3, 200}, false},
		{"some bytes, after a silence", &last, shownLine{at.Add(lineEvery), "running perform", 3, 200}, true},
		{"ten percent", &last, shownLine{at, "running perform", 4, 200}, true},
		{"percent that fall", &last, shownLine{at, "running perform", 2, 200}, false},
		{"another phase", &last, shownLine{at, "running commit", 3, 100}, true},
	} {
		if got := lineDue(test.last, test.next); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestProgressText(t *testing.T) {
	eta := api.Duration(125 * time.Second)
	for want, p := range map[string]api.Progress{
		"":                             {},
		"42%":                          {Percent: 42.9},
		"99%, 1023 B of 1.0 KiB":       {Percent: 99.9, BytesDone: 1023, BytesTotal: 1024},
		"0%, 0 B of 1.0 GiB":           {BytesTotal: 1 << 30},
		"1.2 GiB, 45.0 MiB/s, for 27s": {BytesDone: 1288490189, Rate: 45 << 20},
		"50%, 512.0 MiB of 1.0 GiB, 100.0 MiB/s, 2m5s left": {Percent: 50, BytesDone: 512 << 20, BytesTotal: 1 << 30, Rate: 100 << 20, ETA: &eta},
	} {
		if got := progressText(p, 27*time.Second); got != want {
			t.Errorf("%+v reads %q, want %q", p, got, want)
		}
	}
}

func TestMeter(t *testing.T) {
	var m meter
	at := time.Unix(1000, 0)
	m.add(at, 0)
	if _, known := m.eta(1000); m.rate() != 0 || known {
		t.Error("one count tells no rate")
	}
	m.add(at.Add(2*time.Second), 200)
	if m.rate() != 100 {
		t.Errorf("rate %d, want 100", m.rate())
	}
	if eta, known := m.eta(1200); !known || eta != 10*time.Second {
		t.Errorf("ETA %v, want 10s", eta)
	}
	if eta, _ := m.eta(100); eta != 0 {
		t.Errorf("ETA %v of what is done", eta)
	}
	// A link that becomes slower shows within the window.
	for i := range 30 {
		m.add(at.Add(time.Duration(3+i)*time.Second), 200+int64(i)*10)
	}
	if m.rate() != 10 {
		t.Errorf("rate %d after the link became slower, want 10", m.rate())
	}
	if len(m.samples) > 15 {
		t.Errorf("%d samples are kept", len(m.samples))
	}
	// Memory begins another round.
	m.add(at.Add(40*time.Second), 5)
	if m.rate() != 0 {
		t.Errorf("rate %d after the count fell", m.rate())
	}
	m.add(at.Add(40*time.Second), 50)
	if m.rate() != 0 {
		t.Errorf("rate %d within no time", m.rate())
	}
}

func TestPartText(t *testing.T) {
	var m meter
	at := time.Unix(1000, 0)
	m.add(at, 0)
	m.add(at.Add(time.Second), 1<<20)
	if got := partText(api.PartProgress{BytesDone: 1 << 20, BytesTotal: 4 << 20}, &m); got != "  25%  1.0 MiB of 4.0 MiB  1.0 MiB/s  3s left" {
		t.Errorf("%q", got)
	}
	if got := partText(api.PartProgress{BytesDone: 1 << 20, BytesTotal: 1 << 20}, &m); got != " 100%  1.0 MiB of 1.0 MiB" {
		t.Errorf("%q", got)
	}
	if got := partText(api.PartProgress{BytesDone: 5 << 20}, &m); got != "  5.0 MiB  1.0 MiB/s  for 1s" {
		t.Errorf("of an unknown length: %q", got)
	}
	if got := partText(api.PartProgress{}, &m); strings.Contains(got, "NaN") {
		t.Errorf("%q", got)
	}
}

func TestDestinationURL(t *testing.T) {
	for given, want := range map[string]string{
		"hostb":                 "https://hostb:8470",
		"hostb.example.org":     "https://hostb.example.org:8470",
		"hostb:9000":            "https://hostb:9000",
		"192.0.2.1":             "https://192.0.2.1:8470",
		"fd77::2":               "https://[fd77::2]:8470",
		"[fd77::2]":             "https://[fd77::2]:8470",
		"[fd77::2]:9000":        "https://[fd77::2]:9000",
		"https://hostb:8470":    "https://hostb:8470",
		"http://127.0.0.1:1234": "http://127.0.0.1:1234",
	} {
		if got := destinationURL(given); got != want {
			t.Errorf("destinationURL(%q) = %q, want %q", given, got, want)
		}
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1499 * time.Microsecond: "1ms", 230 * time.Millisecond: "230ms", 2140 * time.Millisecond: "2.1s",
		200*time.Second + 400*time.Millisecond: "3m20s",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%v reads %q, want %q", d, got, want)
		}
	}
}

// A download of which the agent tells neither rate nor ETA, and at first not
// the length.
func TestLinesOfADownload(t *testing.T) {
	var out strings.Builder
	at := time.Unix(1000, 0)
	v := newLineView(&out, func() time.Time { return at }, "register template rocky9")
	for _, step := range []struct {
		after       time.Duration
		done, total int64
	}{{0, 0, 0}, {5 * time.Second, 50 << 20, 0}, {5 * time.Second, 100 << 20, 0}, {5 * time.Second, 150 << 20, 1 << 30}} {
		at = at.Add(step.after)
		op := operation("op-1", templateKind, "", api.StatusRunning, "download")
		op.Progress = api.Progress{BytesDone: step.done, BytesTotal: step.total}
		if step.total > 0 {
			op.Progress.Percent = 100 * float64(step.done) / float64(step.total)
		}
		v.update(op)
	}
	want := `register template rocky9 (op-1): download
register template rocky9 (op-1): download: 50.0 MiB, 10.0 MiB/s, for 5s
register template rocky9 (op-1): download: 100.0 MiB, 10.0 MiB/s, for 10s
register template rocky9 (op-1): download: 14%, 150.0 MiB of 1.0 GiB, 10.0 MiB/s, 1m27s left
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMovingMark(t *testing.T) {
	for done, want := range map[int64]string{
		0: "[<=>---]", 1 << 20: "[-<=>--]", 3 << 20: "[---<=>]", 4 << 20: "[--<=>-]", 6 << 20: "[<=>---]",
	} {
		if got := movingMark(8, done); got != want {
			t.Errorf("%d bytes: %q, want %q", done, got, want)
		}
	}
	if got := movingMark(5, 1<<20); got != "" {
		t.Errorf("no room: %q", got)
	}
}
