package main

import (
	"slices"
	"strings"
	"testing"
)

const looked = `domain i1-s1 running (booted)
source i1-s1 /var/lib/libvirt/images/i1-s1-vda.qcow2
source i1-s1 /srv/shared/i1-s1-vdb.qcow2
qemu i1-s1
file /var/lib/libvirt/images/i1-s1-vda.qcow2
file /var/lib/libvirt/images/template
file /srv/shared/i1-s1-vdb.qcow2
record i1-s1.yaml
mount /
`

// sound is a scene that nothing is wrong with: the instance has moved from a to b.
func sound() scene {
	return scene{
		hosts:     map[string]facts{"a": parseFacts("file /srv/shared/i1-s1-vdb.qcow2\nmount /\n"), "b": parseFacts(looked)},
		mounts:    map[string][]string{"a": {"/"}, "b": {"/"}},
		templates: map[string][]string{"b": {"/var/lib/libvirt/images/template"}},
		partial:   map[string]bool{},
		stories:   map[string]story{"i1-s1": {places: []place{{"b", true}}}},
	}
}

func TestSoundSceneHasNothingBroken(t *testing.T) {
	if got := sound().broken(); len(got) != 0 {
		t.Errorf("broken: %q", got)
	}
}

// Each invariant is found to be broken where it is, and no other with it.
func TestBroken(t *testing.T) {
	add := func(host, lines string) func(*scene) {
		return func(s *scene) {
			was := map[string]string{"a": "file /srv/shared/i1-s1-vdb.qcow2\nmount /\n", "b": looked}[host]
			s.hosts[host] = parseFacts(was + lines)
		}
	}
	for name, row := range map[string]struct {
		change func(*scene)
		want   string
	}{
		"a second copy": {add("a", "domain i1-s1 shut off (destroyed)\n"), "is there twice"},
		"lost": {func(s *scene) {
			s.hosts["b"] = parseFacts("file /srv/shared/i1-s1-vdb.qcow2\nmount /\n")
			s.templates = nil
		}, "is lost"},
		"the operation lies":  {func(s *scene) { s.stories["i1-s1"] = story{places: []place{{"a", true}}} }, "its operations say"},
		"a job":               {add("b", "busy i1-s1 query-block-jobs [1]\n"), "has left of a migration"},
		"a process":           {add("a", "qemu i1-s1\n"), "QEMU runs"},
		"a tool":              {add("a", "tool qemu-img convert\n"), "a tool runs on"},
		"a volume":            {add("a", "file /srv/chaos/i1-s1-vda.qcow2\n"), "left behind"},
		"a partial file":      {add("a", "file /srv/chaos/.wherry-1\n"), "left behind"},
		"a disk without file": {add("b", "source i1-s1 /srv/chaos/gone\n"), "has no file"},
		"a record":            {add("a", "record i1-s1.yaml\n"), "a record of"},
		"a debt":              {add("a", "note /var/lib/wherry/cleanup/x\n"), "still owed"},
		"a secret":            {add("a", "secret 1\n"), "secret"},
		"a mount":             {add("a", "mount /mnt\n"), "mounts"},
	} {
		s := sound()
		row.change(&s)
		got := s.broken()
		if len(got) == 0 || !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, row.want) }) {
			t.Errorf("%s: broken %q; want one with %q", name, got, row.want)
		}
		if name != "lost" && len(got) > 1 {
			t.Errorf("%s: broken %q; want one", name, got)
		}
	}
	s := sound()
	add("a", "domain i1-s1 running (booted)\nqemu i1-s1\nfile /srv/chaos/x\n")(&s)
	s.stories["i1-s1"] = story{undecided: true}
	if got := s.broken(); len(got) != 1 || !strings.Contains(got[0], "runs twice") {
		t.Errorf("undecided, and two run: broken %q", got)
	}
}

func TestTwice(t *testing.T) {
	for name, row := range map[string]struct {
		a, b []int64
		want int
	}{
		"handed over":         {[]int64{0, 1, 2}, []int64{3, 4}, 0},
		"there and back":      {[]int64{0, 1, 5}, []int64{2, 3, 4}, 0},
		"both wrote":          {[]int64{0, 1, 2, 3}, []int64{3, 4}, 1},
		"a disk went back":    {[]int64{0, 1, 2, 1, 2}, nil, 2},
		"nothing was written": {nil, nil, 0},
	} {
		if got := twice(row.a, row.b); len(got) != row.want {
			t.Errorf("%s: %v; want %d", name, got, row.want)
		}
	}
}

func TestHealthy(t *testing.T) {
	first := vitals{goroutines: 50, files: 30, handles: 4, clients: 4, since: 1}
	for name, row := range map[string]struct {
		now  vitals
		want int
	}{
		"as at first":           {first, 0},
		"leaks":                 {vitals{goroutines: 70, files: 40, handles: 4, clients: 4, since: 1}, 2},
		"a handle":              {vitals{goroutines: 50, files: 30, handles: 5, clients: 4, since: 1}, 1},
		"a connection":          {vitals{goroutines: 50, files: 30, handles: 4, clients: 5, since: 1}, 1},
		"another process":       {vitals{goroutines: 90, files: 60, handles: 3, clients: 3, since: 2}, 0},
		"another, and a handle": {vitals{goroutines: 90, files: 60, handles: 9, clients: 4, since: 2}, 1},
	} {
		if got := healthy("a", first, row.now); len(got) != row.want {
			t.Errorf("%s: %q; want %d complaints", name, got, row.want)
		}
	}
}
