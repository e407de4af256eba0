package intake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/intake"
	"github.com/wherry-kvm/wherry/template/intake/hostile"
)

func plain() []byte { return hostile.Harmless()[0].Bytes }

// asks makes a stand-in first take a look at the image, as qemu-img would:
// until then nothing that it does can be the image's fault.
const asks = `printf '\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\0' >&3; head -c 70 <&3 >/dev/null; `

// reports makes a stand-in say that all is well.
const reports = `echo '{"format":"qcow2","virtual-size":1048576}'`

func within(d time.Duration, t *testing.T, program string) *intake.Examiner {
	return intake.New(intake.Options{Program: standIn(t, program), Deadline: d})
}

// A program in place of qemu-img misbehaves in every way that an image could
// make qemu-img misbehave in.
func TestCage(t *testing.T) {
	const long = 20 * time.Second
	for name, tt := range map[string]struct {
		script   string
		deadline time.Duration
		want     func(t testing.TB, err error, code, says string)
		code     string
		says     string
	}{
		"hangs":                  {asks + "sleep 1000", 200 * time.Millisecond, wantTrouble, fault.Image, "does not come to an end"},
		"hangs before it looks":  {"sleep 1000", 200 * time.Millisecond, wantTrouble, fault.Image, "does not come to an end"},
		"cannot be told to stop": {"trap '' TERM INT HUP; " + asks + "while :; do sleep 1000; done", 200 * time.Millisecond, wantTrouble, fault.Image, "does not come to an end"},
		"spins":                  {asks + "while :; do :; done", long, wantRefusal, fault.Image, "processor time"},
		"allocates":              {asks + "x=0123456789abcdef; while :; do x=$x$x; done", long, wantRefusal, fault.Image, "qemu-img c"},
		"fails":                  {asks + "echo qemu-img: Could not open \"'driver=qcow2,x': L1 size too big\" >&2; exit 1", long, wantRefusal, fault.Image, "cannot open it: L1 size too big"},
		"fails without a word":   {asks + "exit 3", long, wantRefusal, fault.Image, "exit status 3"},
		"fails before it looks":  {"echo no such driver >&2; exit 1", long, wantTrouble, fault.Internal, "did not look at the image: no such driver"},
		"does not look":          {reports, long, wantTrouble, fault.Internal, "without a word"},
		"talks without end":      {asks + "yes", long, wantRefusal, fault.Image, "says more than"},
		"says nothing":           {asks, long, wantTrouble, fault.Internal, "no report"},
		"says something else":    {asks + "echo '[1]'", long, wantTrouble, fault.Internal, "no report"},
		"shows colours":          {asks + `printf '\033[31mbad\n\a\0thing' >&2; exit 1`, long, wantRefusal, fault.Image, "[31mbad thing"},
		"writes":                 {asks + `printf '\45\140\225\23\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1x' >&3; sleep 1000`, long, wantTrouble, fault.Internal, "as it should"},
		"speaks otherwise":       {"echo GET / HTTP/1.0, or what else has more than twenty bytes >&3; sleep 1000", long, wantTrouble, fault.Internal, "as it should"},
		"reads without end": {asks + `while :; do printf '\45\140\225\23\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\200\0' >&3; head -c 32784 <&3 >/dev/null; done`,
			long, wantRefusal, fault.Image, "wants to read more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := within(tt.deadline, t, tt.script).Limit(1, 64*mib, mib)
			tt.want(t, check(t, x, plain(), "qcow2"), tt.code, tt.says)
		})
	}
}

// Signals that the image may have caused are its fault, others are the host's.
func TestVerdictOnSignals(t *testing.T) {
	for signal, refused := range map[string]bool{"SEGV": true, "ABRT": true, "BUS": true, "SYS": true, "KILL": false} {
		err := exec.CommandContext(t.Context(), "sh", "-c", "kill -"+signal+" $$").Run()
		if refused {
			wantRefusal(t, intake.Verdict(err), fault.Image, "crashes on it")
		} else {
			wantTrouble(t, intake.Verdict(err), fault.Internal, "was killed")
		}
	}
}

// Whoever stops the caller stops the child, and hears why.
func TestCageIsStopped(t *testing.T) {
	x := within(time.Minute, t, asks+"sleep 1000")
	stopped := errors.New("the agent stops")
	ctx, stop := context.WithCancelCause(t.Context())
	file := written(t, plain())
	time.AfterFunc(100*time.Millisecond, func() { stop(stopped) })
	if _, err := x.Check(ctx, file, "qcow2"); !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}

// What a child started dies with it, whether it went on in its group or not.
func TestCageLeavesNobodyBehind(t *testing.T) {
	for name, tail := range map[string]string{"ends": "", "fails": "; exit 1", "hangs": "; sleep 1000"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mark := "1000." + fmt.Sprint(time.Now().UnixNano())
			script := asks + "sleep " + mark + "1 & "
			if os.Geteuid() == 0 {
				script += "setsid sleep " + mark + "2 & (setsid sh -c 'sleep " + mark + "3' &) "
			}
			x := within(500*time.Millisecond, t, script+"\n"+reports+tail).Limit(5, 256*mib, mib)
			err := check(t, x, plain(), "qcow2")
			if name == "ends" && err != nil {
				t.Errorf("%v", err)
			}
			if left := running(t, mark); len(left) > 0 {
				t.Errorf("still there: %q", left)
			}
		})
	}
}

// running lists the commands of processes with a mark in them, our own aside.
func running(t *testing.T, mark string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(mark)) {
			out = append(out, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}

// What a child is, and what it may.
func TestCageConfines(t *testing.T) {
	dir := openFolder(t)
	secret := filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	t.Setenv("WHERRY_TEST_SECRET", "secret")
	var leaky [2]int // without O_CLOEXEC, as a library may open it
	must(t, unix.Pipe(leaky[:]))
	defer func() { _, _ = unix.Close(leaky[0]), unix.Close(leaky[1]) }()
	script := `
env
echo "fds $(cd /proc/self/fd; echo *)"
echo "cwd $(pwd)"
sed 's/Max file size/Max size of file/' /proc/self/limits
grep -E 'Groups|NoNewPrivs|CapEff|CapPrm|Uid' /proc/self/status
grep -c : /proc/self/net/dev
cat ` + secret + ` 2>/dev/null
(echo content > ` + filepath.Join(dir, "written") + `) 2>/dev/null
echo end`
	out, _, err := intake.New(intake.Options{}).Run(t.Context(), standIn(t, script))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := map[string]string{}
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) > 1 {
			lines[words[0]+" "+words[1]] = strings.Join(words, " ")
		}
	}
	for key, want := range map[string]string{
		"Max address": "Max address space 1073741824 1073741824 bytes", "Max cpu": "Max cpu time 10 10 seconds",
		"Max size": "Max size of file 0 0 bytes", "Max core": "Max core file size 0 0 bytes",
		"Max open": "Max open files 64 64 files", "NoNewPrivs: 1": "NoNewPrivs: 1", "cwd /": "cwd /",
		// Its three streams, the image, and the folder that is listed.
		"fds 0": "fds 0 1 2 3 4",
	} {
		if lines[key] != want {
			t.Errorf("%q: %q; want %q", key, lines[key], want)
		}
	}
	if strings.Contains(out, "WHERRY_TEST_SECRET") || strings.Contains(out, "PATH=/usr") {
		t.Errorf("an environment:\n%s", out)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "written")); len(b) > 0 {
		t.Error("it wrote to a file")
	}
	if os.Geteuid() != 0 {
		return
	}
	if strings.Contains(out, "secret\n") || strings.Contains(out, "Uid:\t0") {
		t.Errorf("privileged:\n%s", out)
	}
	for key, want := range map[string]string{
		"Max processes": "Max processes 256 256 processes", "CapEff: 0000000000000000": "CapEff: 0000000000000000",
		"CapPrm: 0000000000000000": "CapPrm: 0000000000000000",
	} {
		if lines[key] != want {
			t.Errorf("%q: %q; want %q", key, lines[key], want)
		}
	}
	if !strings.Contains(out, "\n1\n") {
		t.Errorf("it sees more than the loopback device:\n%s", out)
	}
}

// A report is believed in nothing but what it denies.
func TestCompare(t *testing.T) {
	info := template.ImageInfo{Format: "qcow2", VirtualSize: 1048576}
	for report, says := range map[string]string{
		`{"format":"raw","virtual-size":1048576}`:                                                                  `reads it as "raw"`,
		`{"format":"qcow2","virtual-size":1049088}`:                                                                "reads 1049088",
		`{"format":"qcow2","virtual-size":1048576,"backing-filename":"/etc/passwd"}`:                               `backing file, "/etc/passwd"`,
		`{"format":"qcow2","virtual-size":1048576,"full-backing-filename":"nbd://x"}`:                              `protocol "nbd"`,
		`{"format":"qcow2","virtual-size":1048576,"backing-filename-format":"raw"}`:                                "backing file",
		`{"format":"qcow2","virtual-size":1048576,"backing-image":{}}`:                                             "backing file",
		`{"format":"qcow2","virtual-size":1048576,"encrypted":true}`:                                               "encrypted",
		`{"format":"qcow2","virtual-size":1048576,"dirty-flag":true}`:                                              "dirty",
		`{"format":"qcow2","virtual-size":1048576,"snapshots":[{}]}`:                                               "1 internal snapshots",
		`{"format":"qcow2","virtual-size":1048576,"format-specific":{"data":{"data-file":"json:{}"}}}`:             "description of block devices",
		`{"format":"qcow2","virtual-size":1048576,"format-specific":{"data":{"corrupt":true}}}`:                    "corrupt",
		`{"format":"qcow2","virtual-size":1048576,"format-specific":{"data":{"encrypt":{"format":"luks"}}}}`:       "encrypted",
		`{"format":"qcow2","virtual-size":1048576,"format-specific":{"data":{"bitmaps":[{"name":"b"}]}}}`:          "bitmaps",
		`{"format":"qcow2\u001b[31m` + strings.Repeat("x", 100) + `","virtual-size":1048576,"backing-image":null}`: `reads it as "qcow2 [31mxxx`,
	} {
		wantRefusal(t, intake.Compare([]byte(report), info), fault.Image, says)
	}
	if err := intake.Compare([]byte(`{"format":"qcow2","virtual-size":1048576,"format-specific":{"type":"qcow2","data":{"compat":"1.1"}}}`), info); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for _, report := range []string{"", "{", "null x", `{"virtual-size":"many"}`} {
		wantTrouble(t, intake.Compare([]byte(report), info), fault.Internal, "no report")
	}
}
