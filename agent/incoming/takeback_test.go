package incoming_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// unmounts are what a pool's folder looks like without its file system. Each
// gives what brings that back.
var unmounts = map[string]func(w *world) (mount func()){
	"its folder is not there": func(w *world) func() {
		must(w.t, os.Rename(w.pool, w.pool+".away"))
		return func() { must(w.t, os.Rename(w.pool+".away", w.pool)) }
	},
	"an empty folder is there": func(w *world) func() {
		must(w.t, errors.Join(os.Rename(w.pool, w.pool+".away"), os.Mkdir(w.pool, 0o700)))
		return func() { must(w.t, errors.Join(os.Remove(w.pool), os.Rename(w.pool+".away", w.pool))) }
	},
	"another file system is there, with a file of that name": func(w *world) func() {
		must(w.t, errors.Join(os.Rename(w.pool, w.pool+".away"), os.Mkdir(w.pool, 0o700),
			os.WriteFile(filepath.Join(w.pool, "vm.qcow2"), []byte("theirs"), 0o600)))
		return func() { must(w.t, errors.Join(os.RemoveAll(w.pool), os.Rename(w.pool+".away", w.pool))) }
	},
	"a link to it leads elsewhere": func(w *world) func() {
		must(w.t, errors.Join(os.Rename(w.pool, w.pool+".away"), os.Mkdir(w.pool+".other", 0o700), os.Symlink(w.pool+".other", w.pool)))
		return func() { must(w.t, errors.Join(os.Remove(w.pool), os.Rename(w.pool+".away", w.pool))) }
	},
}

// What cannot be seen is not gone: the reservation owes it until its pool is
// there again.
func TestRemoveWaitsForThePool(t *testing.T) {
	for name, unmount := range unmounts {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ready(w.request())
			mount := unmount(w)
			wantProblem(t, w.Remove(t.Context(), opID), "internal", w.pool)
			w.wantJournal(1)
			in, err := w.Get(t.Context(), opID)
			must(t, err)
			if in.State != "failed" || in.Error == nil || !strings.Contains(in.Error.Detail, "not mounted") || !strings.Contains(in.Error.Hint, "mount the pool") {
				t.Errorf("reservation %s: %v", in.State, in.Error)
			}
			w.Close()
			w.start()
			w.pass(2 * lease)
			w.Sweep(t.Context())
			w.wantJournal(1)

			mount()
			w.Sweep(t.Context())
			w.wantFiles()
			w.wantJournal(0)
		})
	}
}

// A preparation that fails as its pool goes owes the volume, too.
func TestFailedPreparationOwesWhatItCannotSee(t *testing.T) {
	w := newWorld(t)
	var mount func()
	w.runner.before = func(int) error {
		mount = unmounts["an empty folder is there"](w)
		return errors.New("qemu-img failed")
	}
	if in := w.settled(w.request()); in.State != "failed" {
		t.Fatalf("reservation %s", in.State)
	}
	w.runner.before = nil
	w.pass(2 * lease)
	w.Sweep(t.Context())
	w.wantJournal(1)
	mount()
	w.Sweep(t.Context())
	w.wantFiles()
	w.wantJournal(0)
}

// A pool that is gone for good does not keep a reservation for ever.
func TestWhatIsOwedCanBeGivenUp(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	keep := api.ResolveRequest{Keep: api.SideSource, OtherHost: api.OtherHasIt}
	_, err := w.Resolve(t.Context(), opID, keep)
	wantProblem(t, err, "conflict", "not in doubt")
	mount := unmounts["an empty folder is there"](w)
	wantProblem(t, w.Remove(t.Context(), opID), "internal")
	_, err = w.Resolve(t.Context(), opID, keep)
	must(t, err)
	w.wantJournal(0)
	mount()
	w.wantFiles("vm.qcow2")
}

// A removal that an agent's death broke off is taken up by the next one.
func TestRemoveTakesUpOneThatBrokeOff(t *testing.T) {
	w := newWorld(t)
	in := w.ready(w.managed())
	var st unix.Stat_t
	must(t, unix.Stat(in.Disks[0].Path, &st))
	must(t, os.Rename(in.Disks[0].Path, filepath.Join(w.pool, fmt.Sprintf(".wherry-removing-%d", st.Ino))))
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles()
	if len(w.reg.refs) != 0 {
		t.Errorf("refs %v", w.reg.refs)
	}
}

// renumbered makes the journal that of a time when the pool's file system had
// another device number, as it may before the host or the pool came back.
func (w *world) renumbered() {
	w.t.Helper()
	w.Close()
	journal := map[string][]byte{}
	must(w.t, w.store.List("incoming", func(key string, value []byte) error {
		var r map[string]any
		d := json.NewDecoder(strings.NewReader(string(value)))
		d.UseNumber()
		err := d.Decode(&r)
		for _, v := range r["volumes"].([]any) {
			for _, file := range []string{"folder", "owned"} {
				v.(map[string]any)[file].(map[string]any)["dev"] = 1
			}
		}
		out, jerr := json.Marshal(r)
		journal[key] = out
		return errors.Join(err, jerr)
	}))
	for key, value := range journal {
		must(w.t, w.store.Put("incoming", key, value))
	}
	w.start()
}

// A file system that was mounted anew may have another number. What was made
// there is known all the same, and so is who stands on it.
func TestRemoveAfterThePoolWasMountedAnew(t *testing.T) {
	w := newWorld(t)
	in := w.ready(w.request())
	w.renumbered()
	w.libvirt.set(hypervisor.Domain{Name: "other", UUID: "other", State: hypervisor.Shutoff, Persistent: true})
	w.libvirt.disks = map[string]string{"other": "<disk type='file' device='disk'><driver type='qcow2'/><source file='" + in.Disks[0].Path + "'/><target dev='vda'/></disk>"}
	wantProblem(t, w.Remove(t.Context(), opID), "conflict", "other")
	w.wantFiles("vm.qcow2")
	w.libvirt.set()
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles()
	w.wantJournal(0)
}

// Another file of that name is another's, whatever its file system is called.
func TestRemoveAfterThePoolWasMountedAnewLeavesOthers(t *testing.T) {
	w := newWorld(t)
	in := w.ready(w.request())
	w.renumbered()
	must(t, os.Remove(in.Disks[0].Path))
	must(t, os.WriteFile(in.Disks[0].Path, []byte("theirs"), 0o600))
	must(t, w.Remove(t.Context(), opID))
	w.wantFiles("vm.qcow2")
}

// Whoever comes with the instance again hears what is in the way, and what can be
// done about it: nothing is arriving, and the operation is not one of this host.
func TestOwedIsSaidToWhoComesAgain(t *testing.T) {
	w := newWorld(t)
	w.ready(w.request())
	unmounts["an empty folder is there"](w)
	wantProblem(t, w.Remove(t.Context(), opID), "internal")
	again := w.request()
	again.Operation = "01JZZZZZZZZZZZZZZZZZZAGAIN"
	_, err := w.Reserve(t.Context(), again)
	p := wantProblem(t, err, "busy", opID, "not mounted")
	if p.Operation != opID || !strings.Contains(p.Hint, "wherry operation resolve "+opID) {
		t.Errorf("operation %q, hint %q", p.Operation, p.Hint)
	}
	f, err := w.Facts(t.Context(), api.FactsRequest{Project: again.Project, Name: again.Name, UUID: again.UUID})
	must(t, err)
	for _, part := range []string{opID, "not mounted", "wherry operation resolve"} {
		if !strings.Contains(f.NameTaken, part) {
			t.Errorf("name taken: %q; want it to say %q", f.NameTaken, part)
		}
	}
}
