//go:build lab

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// unit offers a new file of a host as an iSCSI LUN until the test ends. Size is
// in bytes. It gives the target, the LUN's URL, and the file as seen from here.
func (w *world) unit(on *side, number int, size int64) (api.Target, string, string) {
	w.Helper()
	file := fmt.Sprintf("unit%d.raw", number)
	w.exec(on, "truncate", "-s", fmt.Sprint(size), filepath.Join(harness.SecondPath, file))
	iqn := fmt.Sprintf("iqn.2024-01.org.wherry:%s-%d", on.Name, number)
	w.cleanup("ending the iSCSI target", on.EndISCSI)
	url, err := on.ExportISCSI(w.ctx, number, iqn, filepath.Join(harness.SecondPath, file))
	w.must(err)
	portal := strings.Split(strings.TrimPrefix(url, "iscsi://"), "/")[0]
	return api.Target{Type: "iscsi", Portal: portal, IQN: iqn, LUN: 1}, fmt.Sprintf("iscsi://%s:3260/%s/1", portal, iqn), filepath.Join(on.Second(), file)
}

// A local disk goes onto a LUN of the destination and, on request, from there
// into a folder again.
func TestLocalDiskMovesOntoALUNAndBack(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	target, url, backing := w.unit(w.b, 1, 2*imageSize)
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(w.a, name+".qcow2", mib)},
		{Target: "vdb", Source: w.loaded(w.a, name+"-data.qcow2", 4*mib)},
	}})
	request := api.MigrateRequest{KeepSourceVolumes: true, Disks: []api.DiskRequest{{Target: "vdb", Connect: &target}}}
	if d := w.planned(w.plan(w.a, name, request), "vdb"); d.Action != api.ActionCopy || d.Destination.Kind != "network" || d.Destination.Format != "raw" {
		t.Errorf("planned %+v; want a copy onto the network, raw", d)
	}
	w.must(w.lab.Guest(name).Pause(w.ctx, w.a.Host))
	w.migrate(w.a, name, request)
	out, err := exec.CommandContext(w.ctx, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", filepath.Join(w.a.Images(), name+"-data.qcow2"), backing).CombinedOutput()
	if err != nil {
		t.Errorf("the LUN does not hold what the disk held: %v %s", err, out)
	}
	w.must(w.lab.Guest(name).Resume(w.ctx, w.b.Host))
	for _, flags := range [][]string{nil, {"--inactive"}} {
		if d := w.defined(w.b, name, "vdb", flags...); d.Type != "network" || d.Protocol != "iscsi" || d.Format != "raw" || d.Source != url {
			t.Errorf("XML %v: disk %+v; want raw on %s", flags, d, url)
		}
	}
	if reports := w.alive(name, w.b); len(reports) != 2 {
		t.Errorf("%d disks verified, %+v; want both", len(reports), reports)
	}

	// Both files were kept on a, as asked, and neither is touched: the disks
	// go there under other names.
	before := w.checksum(filepath.Join(w.a.Images(), name+"-data.qcow2"))
	w.migrate(w.b, name, api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vdb", Pool: "default", Format: "qcow2"}}})
	if d := w.defined(w.a, name, "vdb", "--inactive"); d.Type != "file" || d.Format != "qcow2" || filepath.Dir(d.Source) != harness.ImagesPath {
		t.Errorf("disk %+v; want a qcow2 file of the pool", d)
	}
	if d := w.defined(w.a, name, "vda"); d.Source == filepath.Join(harness.ImagesPath, name+".qcow2") {
		t.Errorf("disk %+v took the place of a file that was there", d)
	}
	if after := w.checksum(filepath.Join(w.a.Images(), name+"-data.qcow2")); after != before {
		t.Error("a file of the destination that is none of the migration's was changed")
	}
	if reports := w.alive(name, w.a); len(reports) != 2 {
		t.Errorf("%d disks verified, %+v; want both", len(reports), reports)
	}
	w.clean(name, w.b)
	w.exists(w.b, filepath.Join(harness.SecondPath, "unit1.raw"), true)
}

// A LUN that both hosts reach is connected and not copied.
func TestLUNReachedByBothHostsIsNotCopied(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	target, url, _ := w.unit(w.a, 1, 2*imageSize)
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(w.a, name+".qcow2", mib)},
		{Target: "vdb", Source: url, Format: "raw"},
	}})
	d := w.planned(w.plan(w.a, name, api.MigrateRequest{}), "vdb")
	if d.Action != api.ActionSkip || d.Reason != "same-storage" || d.Connect == nil || d.Connect.IQN != target.IQN || d.Bytes != 0 {
		t.Errorf("planned %+v; want it skipped and connected", d)
	}
	w.must(w.lab.Guest(name).WaitBlock(w.ctx, w.a.Host, "vdb", 3))
	for _, from := range w.sides() {
		w.migrate(from, name, api.MigrateRequest{})
		on := w.other(from)
		reports := w.alive(name, on)
		if len(reports) != 2 || reports[1].Disk != "vdb" || reports[1].Blocks < 3 {
			t.Errorf("reports %+v; want the LUN's blocks verified", reports)
		}
		if d := w.defined(on, name, "vdb", "--inactive"); d.Source != url {
			t.Errorf("disk %+v; want %s", d, url)
		}
		w.clean(name, from)
	}
}

// What refuses a target says so in its own words, whoever asks.
func TestTargetsKeepTheAgentsWords(t *testing.T) {
	w := begin(t)
	good, url, _ := w.unit(w.b, 1, mib)
	w.locked(w.b, 2, "unit1.raw")
	locked := good
	locked.IQN = lockedIQN
	wrong, right, absent := locked, locked, good
	wrong.CHAP = &api.CHAP{User: "ferryman", Secret: "wrong-horse-battery"}
	right.CHAP = &api.CHAP{User: "ferryman", Secret: "correct-horse"}
	absent.IQN = "iqn.2024-01.org.wherry:absent"

	for _, c := range []struct {
		name    string
		targets []api.Target
		index   int
		words   string // of QEMU's initiator
	}{
		{"no such target", []api.Target{good, absent}, 1, "Target not found"},
		{"no login", []api.Target{locked}, 0, "Failed to log in to target"},
		{"wrong secret", []api.Target{good, right, wrong}, 2, "Authentication failure"},
		{"no such type", []api.Target{{Type: "ferry"}}, 0, "must be one of file, iscsi"},
	} {
		_, err := w.b.api.ModifyTargets(w.ctx, api.TargetsRequest{Add: true, Targets: c.targets})
		if err == nil {
			t.Errorf("%s: connected", c.name)
			continue
		}
		p := api.AsProblem(err)
		field := fmt.Sprintf("targets[%d]", c.index)
		if len(p.Fields) != 1 || !strings.HasPrefix(p.Fields[0].Field, field) || !strings.Contains(strings.ToLower(p.Detail+p.Fields[0].Detail), strings.ToLower(c.words)) {
			t.Errorf("%s: %s; want %s and the words %q", c.name, describe(p), field, c.words)
		}
		if strings.Contains(describe(p), "horse") {
			t.Errorf("%s: the secret is in the answer: %s", c.name, describe(p))
		}
		if logins := w.logins(w.b); len(logins) != 0 {
			t.Errorf("%s: logins were left on the host: %q; want those of the siblings undone", c.name, logins)
		}
	}
	for range 2 { // adding twice is success
		r, err := w.b.api.ModifyTargets(w.ctx, api.TargetsRequest{Add: true, Targets: []api.Target{good, right}})
		w.must(err)
		if len(r.Connected) != 2 || r.Connected[0].Path != url || r.Connected[0].Size != mib || r.Connected[1].Index != 1 {
			t.Errorf("connected %+v; want both, in order", r.Connected)
		}
		if logins := w.logins(w.b); len(logins) != 1 {
			t.Errorf("the host keeps %q; want the one login", logins)
		}
	}
	for range 2 {
		_, err := w.b.api.ModifyTargets(w.ctx, api.TargetsRequest{Targets: []api.Target{good, right}})
		w.must(err)
	}
	if logins := w.logins(w.b); len(logins) != 0 {
		t.Errorf("the host still keeps %q", logins)
	}
}

// A login that a target of the host asks for.
const (
	lockedIQN = "iqn.2024-01.org.wherry:locked"
	lockedBy  = "ferryman"
	lockedKey = "correct-horse"
)

// forgetLogins removes all of Wherry's logins from both hosts.
func (w *world) forgetLogins(ctx context.Context) error {
	for _, s := range w.sides() {
		if _, err := s.Exec(ctx, "sh", "-c", `virsh -q secret-list | awk '/ wherry /{print $1}' | xargs -r -n 1 virsh -q secret-undefine`); err != nil {
			return err
		}
	}
	return nil
}

// locked offers a file of pool second as a LUN that asks for a login.
func (w *world) locked(on *side, number int, file string) {
	w.Helper()
	// Other tests leave logins that are meant to stay: of instances without a record, for one.
	w.must(w.forgetLogins(w.ctx))
	w.cleanup("forgetting logins", w.forgetLogins)
	tid := fmt.Sprint(number)
	for _, words := range [][]string{
		{"--op", "new", "--mode", "target", "--tid", tid, "--targetname", lockedIQN},
		{"--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "--backing-store", filepath.Join(harness.SecondPath, file)},
		{"--op", "bind", "--mode", "target", "--tid", tid, "--initiator-address", "ALL"},
		{"--op", "new", "--mode", "account", "--user", lockedBy, "--password", lockedKey},
		{"--op", "bind", "--mode", "account", "--tid", tid, "--user", lockedBy},
	} {
		w.exec(on, append([]string{"tgtadm", "--lld", "iscsi"}, words...)...)
	}
}

// logins are the logins that a host's libvirt keeps for Wherry.
func (w *world) logins(on *side) []string {
	w.Helper()
	var out []string
	for line := range strings.Lines(w.exec(on, "virsh", "-q", "secret-list")) {
		if strings.Contains(line, "wherry ") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// A disk moves onto a LUN that asks for a login. The instance's own QEMU logs in
// with it, at the next start too, and the login goes with the instance.
func TestLocalDiskMovesOntoALUNWithALogin(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	target, _, _ := w.unit(w.b, 1, 2*imageSize)
	w.locked(w.b, 2, "unit1.raw")
	target.IQN, target.CHAP = lockedIQN, &api.CHAP{User: lockedBy, Secret: lockedKey}
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(w.a, name+".qcow2", mib)},
		{Target: "vdb", Source: w.loaded(w.a, name+"-data.qcow2", 2*mib)},
	}})
	request := api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vdb", Connect: &target}}}
	if plan := w.plan(w.a, name, request); strings.Contains(fmt.Sprintf("%+v", *w.planned(plan, "vdb").Connect), lockedKey) || w.planned(plan, "vdb").Connect.CHAP != nil {
		t.Errorf("plan %+v shows the login", w.planned(plan, "vdb").Connect)
	}
	w.migrate(w.a, name, request)
	if reports := w.alive(name, w.b); len(reports) != 2 {
		t.Errorf("%d disks verified, %+v; want both", len(reports), reports)
	}
	if logins := w.logins(w.b); len(logins) != 1 || !strings.Contains(logins[0], lockedIQN) {
		t.Errorf("the host keeps %q; want the login", logins)
	}
	if xml := w.exec(w.b, "virsh", "dumpxml", "--inactive", name); strings.Contains(xml, lockedKey) || !strings.Contains(xml, lockedBy) {
		t.Errorf("definition %s; want the user, and not the secret", xml)
	}

	w.migrate(w.b, name, api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vdb", Pool: "default"}}})
	if reports := w.alive(name, w.a); len(reports) != 2 {
		t.Errorf("%d disks verified, %+v; want both", len(reports), reports)
	}
	for _, s := range w.sides() {
		if logins := w.logins(s); len(logins) != 0 {
			t.Errorf("host %s still keeps %q", s.Name, logins)
		}
	}
}

// A destination that claims success and gives too few paths is not believed.
func TestTooFewPathsNameTheDisk(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	target, _, _ := w.unit(w.b, 1, 2*imageSize)
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(w.a, name+".qcow2", mib)},
		{Target: "vdb", Source: w.loaded(w.a, name+"-data.qcow2", mib)},
	}})
	var removed []api.Target
	url := w.proxy(w.b, func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/targets" {
			return false
		}
		var body api.TargetsRequest
		data, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(data, &body) != nil {
			http.Error(rw, "unreadable", http.StatusBadRequest)
			return true
		}
		if !body.Add {
			removed = append(removed, body.Targets...)
		}
		rw.Header().Set("Content-Type", "application/json")
		io.WriteString(rw, `{"connected":[]}`)
		return true
	})
	request := api.MigrateRequest{Destination: url, Disks: []api.DiskRequest{{Target: "vdb", Connect: &target}}}
	id := w.begun(w.a, name, request)
	w.failed(w.a, id, "no-connected-path", "connect", "vdb", "0 paths for 1 targets")
	w.stayed(name, w.a, id)
	if len(removed) != 1 || removed[0].IQN != target.IQN {
		t.Errorf("taken back: %+v; want the target that may have been connected", removed)
	}
	request.Destination = ""
	w.migrate(w.a, name, request)
	w.alive(name, w.b)
}

// A volume of one PowerFlex system appears on the destination by a rescan. The
// lab has no PowerFlex: a loop device stands in for the volume that both hosts
// share, and the lab's rescan command for the proprietary driver's.
func TestPowerFlexVolumeIsConnectedNotCopied(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	const id = "emc-vol-1a2b3c4d5e6f7a8b-00000000deadbeef"
	w.exec(w.a, "truncate", "-s", fmt.Sprint(2*imageSize), harness.SharedPath+"/powerflex.raw")
	device := w.exec(w.a, "losetup", "--find", "--show", "--direct-io=off", harness.SharedPath+"/powerflex.raw")
	w.cleanup("detaching the stand-in", func(ctx context.Context) error {
		for _, s := range w.sides() {
			if err := s.Remove(ctx, name); err != nil {
				return err
			}
			if _, err := s.Exec(ctx, "rm", "-f", "/etc/wherry/powerflex.map", "/dev/disk/by-id/"+id); err != nil {
				return err
			}
		}
		_, err := w.a.Exec(ctx, "losetup", "--detach", device)
		return err
	})
	for _, s := range w.sides() {
		w.exec(s, "sh", "-c", `[ -b "$0" ] || mknod "$0" b 7 "${0#/dev/loop}"; echo "$1 $0" >/etc/wherry/powerflex.map`, device, id)
	}
	w.exec(w.a, "/etc/wherry/powerflex-rescan")
	w.exists(w.b, "/dev/disk/by-id/"+id, false)
	w.foreign(w.a, harness.Domain{Name: name, MemoryMiB: 96, Disks: []harness.Disk{
		{Target: "vda", Source: w.loaded(w.a, name+".qcow2", mib)},
		{Target: "vdb", Source: "/dev/disk/by-id/" + id, Format: "raw"},
	}})
	d := w.planned(w.plan(w.a, name, api.MigrateRequest{}), "vdb")
	if d.Action != api.ActionSkip || d.Reason != "same-storage" || d.Connect == nil || d.Connect.VolumeID != "00000000deadbeef" {
		t.Errorf("planned %+v; want it skipped and connected", d)
	}
	w.must(w.lab.Guest(name).WaitBlock(w.ctx, w.a.Host, "vdb", 3))
	w.migrate(w.a, name, api.MigrateRequest{})
	if reports := w.alive(name, w.b); len(reports) != 2 || reports[1].Blocks < 3 {
		t.Errorf("reports %+v; want the volume's blocks verified", reports)
	}
	w.exists(w.b, "/dev/disk/by-id/"+id, true)
	w.clean(name, w.a)

	// One that no rescan brings says which path was waited for.
	w.agentWith(w.b, "WHERRY_POWERFLEX_TIMEOUT=1s")
	_, err := w.b.api.ModifyTargets(w.ctx, api.TargetsRequest{Add: true, Targets: []api.Target{{Type: "powerflex", SystemID: "1A2B3C4D5E6F7A8B", VolumeID: "00000000cafe0001"}}})
	if p := w.problem(err, "target-failed"); !strings.Contains(p.Detail, "/dev/disk/by-id/emc-vol-1a2b3c4d5e6f7a8b-00000000cafe0001") {
		t.Errorf("%s; want the path that did not appear", describe(p))
	}
}
