package http

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/wherry-kvm/wherry/http/api"
)

// The check functions judge requests by themselves: form, ranges, words. What
// needs a look at the host is for the services to judge.

func checkCreate(r api.CreateRequest) (f faults) {
	f.newName("name", r.Name)
	if r.Template != "" {
		f.id("template", r.Template)
	}
	f.pool("pool", r.Pool)
	f.oneOf("clone", r.Clone, "linked", "full")
	f.notNegative("disk_size", r.DiskSize)
	f.notNegative("vcpus", int64(r.VCPUs))
	f.notNegative("memory", r.Memory)
	if r.Boot != nil {
		f.file("boot.kernel", r.Boot.Kernel)
		if r.Boot.Initrd != "" {
			f.file("boot.initrd", r.Boot.Initrd)
		}
		if strings.ContainsFunc(r.Boot.Cmdline, unicode.IsControl) {
			f.add("boot.cmdline", "may not contain control characters")
		}
	}
	if r.ConsoleLog != "" {
		f.file("console_log", r.ConsoleLog)
	}
	if r.Stop != nil {
		f.stopPolicy("stop.", *r.Stop)
	}
	return f
}

func checkDelete(api.DeleteRequest) faults { return nil }

func checkStop(r api.StopRequest) (f faults) {
	f.oneOf("on_timeout", r.OnTimeout, "fail", "force")
	return f
}

func checkMigrate(r api.MigrateRequest) (f faults) {
	f.peer("destination", r.Destination)
	f.oneOf("mode", r.Mode, api.ModeAuto, api.ModeFull, api.ModeLinked)
	f.oneOf("seed", r.Seed, "auto", "off")
	f.notNegative("bandwidth", r.Bandwidth)
	f.oneOf("on_not_converging", r.OnNotConverging, api.NotConvergingDowntime, api.NotConvergingPause, api.NotConvergingAbort)
	seen := map[string]bool{}
	for i, d := range r.Disks {
		at := fmt.Sprintf("disks[%d].", i)
		f.disk(at+"target", d.Target)
		f.once(at+"target", d.Target, seen)
		f.pool(at+"pool", d.Pool)
		f.oneOf(at+"format", d.Format, "qcow2", "raw")
		if d.Connect != nil {
			f.target(at+"connect.", *d.Connect)
		}
	}
	return f
}

// once finds a disk that is named twice.
func (f *faults) once(field, v string, seen map[string]bool) {
	if seen[v] {
		f.add(field, "names %q a second time", v)
	}
	seen[v] = true
}
