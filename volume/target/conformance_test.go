package target_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/volume"
	"github.com/wherry-kvm/wherry/volume/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// subject is a connector with what the suite needs to know about it.
type subject struct {
	connector target.Connector
	good      target.Target
	path      string // of good
	size      int64  // of good
	// bad is targets that must fail, with a part of the cause's own words.
	bad map[string]bad
}

type bad struct {
	target target.Target
	says   string
}

// TestConnectors holds every connector to the contract of target.Connector.
func TestConnectors(t *testing.T) {
	for name, build := range map[string]func(t *testing.T) subject{
		"file": fileSubject, "block device": blockSubject, "iscsi": iscsiSubject, "iscsi with chap": chapSubject,
		"powerflex": powerflexSubject, "rbd": rbdSubject,
	} {
		t.Run(name, func(t *testing.T) { conform(t, build(t)) })
	}
}

func conform(t *testing.T, s subject) {
	ctx := t.Context()
	t.Run("disconnect what was never connected", func(t *testing.T) {
		if err := s.connector.Disconnect(ctx, s.good); err != nil {
			t.Error(err)
		}
	})
	t.Run("connect twice", func(t *testing.T) {
		for range 2 {
			if path, err := s.connector.Connect(ctx, s.good); err != nil || path != s.path {
				t.Errorf("path %q, %v; want %q", path, err, s.path)
			}
		}
	})
	t.Run("is connected", func(t *testing.T) {
		if p, ok := s.connector.(target.Prober); ok {
			if now, err := p.Connected(ctx, s.good); err != nil || !now {
				t.Errorf("connected: %v, %v", now, err)
			}
		}
	})
	t.Run("size", func(t *testing.T) {
		if z, ok := s.connector.(target.Sizer); ok {
			if size, err := z.VirtualSize(ctx, s.good); err != nil || size != s.size {
				t.Errorf("size %d, %v; want %d", size, err, s.size)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(why)
		if path, err := s.connector.Connect(ctx, s.good); !errors.Is(err, why) || path != "" {
			t.Errorf("path %q, %v; want %v", path, err, why)
		}
	})
	for name, b := range s.bad {
		t.Run(name, func(t *testing.T) {
			path, err := s.connector.Connect(ctx, b.target)
			if err == nil || path != "" || !strings.Contains(err.Error(), b.says) {
				t.Errorf("path %q, %v; want an error that says %q", path, err, b.says)
			}
		})
	}
	t.Run("connects after failures", func(t *testing.T) {
		if path, err := s.connector.Connect(ctx, s.good); err != nil || path != s.path {
			t.Errorf("path %q, %v; want %q", path, err, s.path)
		}
	})
	t.Run("disconnect twice", func(t *testing.T) {
		for range 2 {
			if err := s.connector.Disconnect(ctx, s.good); err != nil {
				t.Error(err)
			}
		}
	})
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func fileSubject(t *testing.T) subject {
	dir, other := tempDir(t), tempDir(t)
	file := writeFile(t, dir+"/disk", "x")
	writeFile(t, other+"/disk", "x")
	if err := os.Symlink(other, dir+"/away"); err != nil {
		t.Fatal(err)
	}
	at := func(path string) target.Target { return target.Target{Type: target.TypeFile, Path: path} }
	return subject{
		connector: target.File{Folders: []string{dir, "/dev"}},
		good:      at(dir + "//./disk"), path: file,
		bad: map[string]bad{
			"missing":          {at(dir + "/gone"), "no such file"},
			"relative":         {at("disk"), "not absolute"},
			"nothing":          {at(""), "not absolute"},
			"dots":             {at(dir + "/../" + filepath.Base(other) + "/disk"), "not absolute and plain"},
			"outside":          {at(other + "/disk"), "outside the allowed folders"},
			"the parent":       {at(filepath.Dir(dir)), "outside the allowed folders"},
			"outside by link":  {at(dir + "/away/disk"), "outside the allowed folders"},
			"character device": {at("/dev/null"), "invalid target"},
		},
	}
}

func blockSubject(t *testing.T) subject {
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	file := writeFile(t, tempDir(t)+"/disk", "")
	if err := os.Truncate(file, 3*mib); err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { run(t, "losetup", "-d", device) })
	return subject{connector: target.File{}, good: target.Target{Type: target.TypeFile, Path: device}, path: device, size: 3 * mib}
}

func iscsiSubject(t *testing.T) subject {
	s := startTGTD(t)
	good := target.Target{Type: target.TypeISCSI, Portal: s.portal, IQN: s.add(t, 1, 8*mib), LUN: 1}
	with := func(change func(*target.Target)) target.Target {
		t := good
		change(&t)
		return t
	}
	return subject{
		connector: target.ISCSI{Runner: volume.Exec{}, Initiator: "iqn.2024-01.wherry:host"},
		good:      good, path: "iscsi://" + s.portal + "/" + good.IQN + "/1", size: 8 * mib,
		bad: map[string]bad{
			"no such unit":         {with(func(t *target.Target) { t.LUN = 7 }), "LOGICAL_UNIT_NOT_SUPPORTED"},
			"no such target":       {with(func(t *target.Target) { t.IQN += "x" }), "Target not found"},
			"nobody listens":       {with(func(t *target.Target) { t.Portal = "127.0.0.1:1" }), "Failed to connect"},
			"no portal":            {with(func(t *target.Target) { t.Portal = "" }), "portal"},
			"portal with options":  {with(func(t *target.Target) { t.Portal = "127.0.0.1,lun=3" }), "portal"},
			"portal with a path":   {with(func(t *target.Target) { t.Portal = "127.0.0.1/x" }), "portal"},
			"port out of range":    {with(func(t *target.Target) { t.Portal = "127.0.0.1:70000" }), "portal"},
			"name with options":    {with(func(t *target.Target) { t.IQN += ",user=x" }), "iqn"},
			"no name":              {with(func(t *target.Target) { t.IQN = "" }), "iqn"},
			"negative unit":        {with(func(t *target.Target) { t.LUN = -1 }), "lun"},
			"unit out of range":    {with(func(t *target.Target) { t.LUN = 1 << 20 }), "lun"},
			"login without secret": {with(func(t *target.Target) { t.CHAP = &target.CHAP{User: "bob"} }), "chap"},
		},
	}
}

func chapSubject(t *testing.T) subject {
	s := startTGTD(t)
	chap := target.CHAP{User: "bob the builder", Secret: "a secret: with signs"}
	good := target.Target{Type: target.TypeISCSI, Portal: s.portal, IQN: s.add(t, 1, 4*mib), LUN: 1, CHAP: &chap}
	s.protect(t, 1, chap)
	wrong, stranger, nobody := good, good, good
	wrong.CHAP = &target.CHAP{User: chap.User, Secret: "another secret"}
	stranger.CHAP = &target.CHAP{User: "eve", Secret: chap.Secret}
	nobody.CHAP = nil
	return subject{
		connector: target.ISCSI{Runner: volume.Exec{}},
		good:      good, path: "iscsi://" + s.portal + "/" + good.IQN + "/1", size: 4 * mib,
		bad: map[string]bad{
			"wrong secret": {wrong, "Authentication failure"},
			"wrong user":   {stranger, "Authentication failure"},
			"no login":     {nobody, "Authentication failure"},
		},
	}
}

// standIn takes the place of PowerFlex's proprietary driver: a script that
// makes the names of all mapped volumes, as driver and udev would after a
// rescan, and complains as a driver might.
const standIn = `[ -e "$1/broken" ] && { echo "SDC is not connected to any MDM" >&2; exit 2; }
for v in "$1"/mapped/*; do ln -sfn "$v" "$1/by-id/emc-vol-$(basename "$v")"; done`

func powerflexSubject(t *testing.T) subject {
	dir := tempDir(t)
	for _, d := range []string{"mapped", "by-id"} {
		if err := os.Mkdir(dir+"/"+d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, dir+"/mapped/1a2b3c-00ff", "")
	if err := os.Mkdir(dir+"/by-id/emc-vol-1a2b3c-dddd", 0o700); err != nil {
		t.Fatal(err)
	}
	vol := func(system, volume string) target.Target {
		return target.Target{Type: target.TypePowerFlex, SystemID: system, VolumeID: volume}
	}
	return subject{
		connector: target.PowerFlex{Runner: volume.Exec{}, Root: dir + "/by-id", Timeout: 300 * time.Millisecond,
			Rescan: []string{"sh", "-c", standIn, "rescan", dir}, Detach: []string{"rm"}},
		good: vol("1A2B3C", "00FF"), path: dir + "/by-id/emc-vol-1a2b3c-00ff",
		bad: map[string]bad{
			"not mapped":       {vol("1a2b3c", "0100"), "emc-vol-1a2b3c-0100\" did not appear within 300ms"},
			"not a device":     {vol("1a2b3c", "dddd"), "not a block device"},
			"no system":        {vol("", "00ff"), "system id"},
			"path as a volume": {vol("1a2b3c", "../../etc/passwd"), "volume id"},
		},
	}
}

// rbdSubject has no Ceph to speak to: the runner answers for qemu-img.
func rbdSubject(*testing.T) subject {
	img := func(pool, image string, monitors ...string) target.Target {
		return target.Target{Type: target.TypeRBD, Pool: pool, Image: image, Monitors: monitors}
	}
	return subject{
		connector: target.RBD{Runner: fakeCeph{"vms/disk-1": 5 * mib}},
		good:      img("vms", "disk-1"), path: "rbd:vms/disk-1", size: 5 * mib,
		bad: map[string]bad{
			"no such image":        {img("vms", "other"), "error opening image"},
			"image with options":   {img("vms", "disk-1:id=admin"), "invalid target"},
			"image with snapshot":  {img("vms", "disk-1@one"), "invalid target"},
			"no pool":              {img("", "disk-1"), "invalid target"},
			"monitor with options": {img("vms", "disk-1", "10.0.0.1:6789,conf=/x"), "monitor"},
		},
	}
}

type fakeCeph map[string]int64

func (f fakeCeph) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for image, size := range f {
		pool, image, _ := strings.Cut(image, "/")
		if args[len(args)-1] == fmt.Sprintf("driver=rbd,pool=%s,image=%s", pool, image) {
			return json.Marshal(map[string]int64{"virtual-size": size})
		}
	}
	return nil, &volume.CommandError{Name: name, Output: "error opening image: No such file or directory", Err: errors.New("exit status 1")}
}

func (f fakeCeph) Stream(context.Context, func([]byte), string, ...string) error {
	panic("a connector has nothing to stream")
}
