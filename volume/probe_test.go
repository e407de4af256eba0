package volume_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/volume"
)

func TestProbe(t *testing.T) {
	here, there := tempDir(t), tempDir(t)
	alias := filepath.Join(there, "alias")
	if err := os.Symlink(here, alias); err != nil {
		t.Fatal(err)
	}
	p, remove, err := volume.WriteProbe(here)
	if err != nil {
		t.Fatal(err)
	}
	if !volume.SeesProbe(here, p) || !volume.SeesProbe(alias, p) {
		t.Error("the probe is not seen where it is")
	}
	if volume.SeesProbe(there, p) || volume.SeesProbe(there+"/gone", p) {
		t.Error("the probe is seen where it is not")
	}
	for range 2 {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(here); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if volume.SeesProbe(here, p) {
		t.Error("the probe is seen after it was removed")
	}
	if _, _, err := volume.WriteProbe(here + "/gone"); err == nil {
		t.Error("a probe in a folder that does not exist")
	}
}

// probe leaves a probe in dir until the test ends.
func probe(t *testing.T, dir string) volume.Probe {
	t.Helper()
	p, remove, err := volume.WriteProbe(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestProbesDiffer(t *testing.T) {
	dir := tempDir(t)
	a, b := probe(t, dir), probe(t, dir)
	if a.Name == b.Name || a.Token == b.Token || volume.SeesProbe(dir, volume.Probe{Name: a.Name, Token: b.Token}) {
		t.Errorf("probes %+v and %+v are mixed up", a, b)
	}
}

// A peer sends the probe: its name may lead nowhere but to a probe.
func TestSeesProbeTrustsNothing(t *testing.T) {
	dir := tempDir(t)
	name, token := ".wherry-probe-"+strings.Repeat("0", 32), strings.Repeat("a", 64)
	writeFile(t, dir+"/secret", []byte(token))
	tests := map[string]struct {
		probe   volume.Probe
		prepare func() error
	}{
		"another name":   {volume.Probe{Name: "secret", Token: token}, nil},
		"a path":         {volume.Probe{Name: "sub/../" + name, Token: token}, nil},
		"a parent":       {volume.Probe{Name: "../" + filepath.Base(dir) + "/secret", Token: token}, nil},
		"nothing":        {volume.Probe{}, nil},
		"no token":       {volume.Probe{Name: name}, func() error { return os.WriteFile(dir+"/"+name, nil, 0o600) }},
		"trailing line":  {volume.Probe{Name: name + "\n", Token: token}, nil},
		"symbolic link":  {volume.Probe{Name: name, Token: token}, func() error { return os.Symlink("secret", dir+"/"+name) }},
		"pipe":           {volume.Probe{Name: name, Token: token}, func() error { return unix.Mkfifo(dir+"/"+name, 0o600) }},
		"longer content": {volume.Probe{Name: name, Token: token}, func() error { return os.WriteFile(dir+"/"+name, []byte(token+"a"), 0o600) }},
		"other content":  {volume.Probe{Name: name, Token: token}, func() error { return os.WriteFile(dir+"/"+name, []byte(token[1:]+"b"), 0o600) }},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			if tt.prepare != nil {
				if err := tt.prepare(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := os.Remove(dir + "/" + name); err != nil {
						t.Error(err)
					}
				})
			}
			if volume.SeesProbe(dir, tt.probe) {
				t.Errorf("probe %+v was believed", tt.probe)
			}
		})
	}
}
