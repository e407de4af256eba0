package target_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/volume"
	"github.com/wherry-kvm/wherry/volume/target"
)

// recording keeps the command lines that were run.
type recording struct {
	volume.Exec
	lines []string
}

func (r *recording) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	r.lines = append(r.lines, strings.Join(append([]string{name}, args...), " "))
	return r.Exec.Run(ctx, name, args...)
}

// No command line, no path and no message shows a CHAP secret.
func TestCHAPSecretStaysHidden(t *testing.T) {
	s := startTGTD(t)
	const secret = "very-secret-word"
	good := target.Target{Type: target.TypeISCSI, Portal: s.portal, IQN: s.add(t, 1, mib), LUN: 1, CHAP: &target.CHAP{User: "bob", Secret: secret}}
	runner := &recording{}
	set := target.Set{target.TypeISCSI: target.ISCSI{Runner: runner}}
	connected, err := set.Connect(t.Context(), []target.Target{good})
	if err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.LUN = 9
	_, err = set.Connect(t.Context(), []target.Target{bad})
	if err == nil {
		t.Fatal("a unit that is not there was connected")
	}
	for what, text := range map[string]string{
		"command line": strings.Join(runner.lines, "\n"), "path": connected[0].Path, "error": err.Error(),
		"print": fmt.Sprintf("%v %+v %#v %s", good, good, *good.CHAP, good.CHAP),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows the secret: %s", what, text)
		}
	}
}

// A user's name cannot smuggle an option in.
func TestISCSIQuotesTheUser(t *testing.T) {
	runner := &recording{}
	c := target.ISCSI{Runner: runner}
	chap := target.CHAP{User: "bob,lun=7", Secret: "s"}
	_, err := c.Connect(t.Context(), target.Target{Portal: "127.0.0.1:1", IQN: "iqn.2024-01.x:y", CHAP: &chap})
	if err == nil || len(runner.lines) != 1 || !strings.Contains(runner.lines[0], ",user=bob,,lun=7,") {
		t.Errorf("%v, ran %q", err, runner.lines)
	}
}

// A portal that takes the connection and says nothing does not hold us.
func TestISCSIDeadline(t *testing.T) {
	portal := silent(t)
	c := target.ISCSI{Runner: volume.Exec{}, Timeout: 200 * time.Millisecond}
	_, err := c.Connect(t.Context(), target.Target{Type: target.TypeISCSI, Portal: portal, IQN: "iqn.2024-01.wherry.test:x", LUN: 1})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "200ms") {
		t.Errorf("error %v", err)
	}
}

// The real driver, if only against monitors that never answer.
func TestRBDDeadline(t *testing.T) {
	monitor := silent(t)
	c := target.RBD{Runner: volume.Exec{}, Timeout: 500 * time.Millisecond}
	_, err := c.Connect(t.Context(), target.Target{Type: target.TypeRBD, Pool: "vms", Image: "disk", Monitors: []string{monitor}})
	if err == nil || strings.Contains(err.Error(), "parameter") {
		t.Errorf("error %v", err)
	}
}

func TestRBDPathWithMonitors(t *testing.T) {
	c := target.RBD{Runner: everyImage{}}
	path, err := c.Connect(t.Context(), target.Target{Pool: "p", Image: "i", Monitors: []string{"mon1", "[2001:db8::1]:3300"}})
	if want := `rbd:p/i:mon_host=mon1\;[2001\:db8\:\:1]\:3300`; err != nil || path != want {
		t.Errorf("path %q, %v; want %q", path, err, want)
	}
}

// everyImage is a runner for which every image is there.
type everyImage struct{ volume.Runner }

func (everyImage) Run(context.Context, string, ...string) ([]byte, error) {
	return []byte(`{"virtual-size": 1048576}`), nil
}

func TestISCSIPortals(t *testing.T) {
	for portal, want := range map[string]string{
		"nas": "iscsi://nas:3260/iqn.2024-01.x:y/0", "10.0.0.1:860": "iscsi://10.0.0.1:860/iqn.2024-01.x:y/0",
		"2001:db8::1": "iscsi://[2001:db8::1]:3260/iqn.2024-01.x:y/0", "[2001:db8::1]": "iscsi://[2001:db8::1]:3260/iqn.2024-01.x:y/0",
		"[2001:db8::1]:860": "iscsi://[2001:db8::1]:860/iqn.2024-01.x:y/0",
	} {
		path, err := target.ISCSI{Runner: everyImage{}}.Connect(t.Context(), target.Target{Portal: portal, IQN: "iqn.2024-01.x:y"})
		if err != nil || path != want {
			t.Errorf("%q: path %q, %v; want %q", portal, path, err, want)
		}
	}
}

// udev names a volume some time after the rescan returned.
func TestPowerFlexWaitsForTheName(t *testing.T) {
	dir := tempDir(t)
	device := writeFile(t, dir+"/device", "")
	ticks := make(chan time.Time)
	var interval time.Duration
	stopped := false
	runner := &recording{}
	c := target.PowerFlex{Runner: runner, Root: dir, Rescan: []string{"true", "--rescan"},
		Tick: func(d time.Duration) (<-chan time.Time, func()) {
			interval = d
			return ticks, func() { stopped = true }
		}}
	type result struct {
		path string
		err  error
	}
	done := make(chan result)
	go func() {
		path, err := c.Connect(t.Context(), target.Target{SystemID: "AB", VolumeID: "01"})
		done <- result{path, err}
	}()
	ticks <- time.Time{}
	// A name that leads nowhere yet is not there yet.
	if err := os.Symlink(device+"-later", dir+"/emc-vol-ab-01"); err != nil {
		t.Fatal(err)
	}
	ticks <- time.Time{}
	ticks <- time.Time{}
	select {
	case r := <-done:
		t.Fatalf("connected before the device was there: %+v", r)
	default:
	}
	if err := os.Rename(device, device+"-later"); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case ticks <- time.Time{}:
			continue
		case r := <-done:
			if r.err != nil || r.path != dir+"/emc-vol-ab-01" {
				t.Errorf("connected %+v", r)
			}
		}
		break
	}
	if interval <= 0 || !stopped {
		t.Errorf("ticker of %s, stopped: %v", interval, stopped)
	}
	if want := []string{"true --rescan"}; !slices.Equal(runner.lines, want) {
		t.Errorf("ran %q; want %q", runner.lines, want)
	}
}

// What is there already needs no rescan.
func TestPowerFlexConnectedAlready(t *testing.T) {
	dir := tempDir(t)
	writeFile(t, dir+"/emc-vol-ab-01", "")
	c := target.PowerFlex{Runner: volume.Exec{}, Root: dir, Rescan: []string{"false"}}
	if path, err := c.Connect(t.Context(), target.Target{SystemID: "ab", VolumeID: "01"}); err != nil || path != dir+"/emc-vol-ab-01" {
		t.Errorf("path %q, %v", path, err)
	}
}

func TestPowerFlexKeepsTheDriversWords(t *testing.T) {
	s := powerflexSubject(t)
	c := s.connector.(target.PowerFlex)
	writeFile(t, c.Rescan[len(c.Rescan)-1]+"/broken", "")
	_, err := c.Connect(t.Context(), s.good)
	if err == nil || !strings.Contains(err.Error(), "SDC is not connected to any MDM") {
		t.Errorf("error %v", err)
	}
}

func TestPowerFlexDisconnects(t *testing.T) {
	s := powerflexSubject(t)
	if _, err := s.connector.Connect(t.Context(), s.good); err != nil {
		t.Fatal(err)
	}
	if err := s.connector.Disconnect(t.Context(), s.good); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the name is still there: %v", err)
	}
}
