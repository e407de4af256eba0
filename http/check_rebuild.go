package http

import "github.com/wherry-kvm/wherry/http/api"

// sectorSize is what QEMU counts a disk in, in bytes.
const sectorSize = 512

func checkRebuild(r api.RebuildRequest) (f faults) {
	f.given("source.type", r.Source.Type)
	f.oneOf("source.type", r.Source.Type, api.SourceOriginal, api.SourceTemplate, api.SourceEmpty)
	switch {
	case r.Source.Type == api.SourceTemplate:
		f.id("source.template", r.Source.Template)
	case r.Source.Template != "":
		f.add("source.template", "goes with the type %q only", api.SourceTemplate)
	}
	f.notNegative("disk_size", r.DiskSize)
	if r.DiskSize%sectorSize != 0 {
		f.add("disk_size", "is not a multiple of %d", sectorSize)
	}
	if r.Timeout != 0 && !r.Force {
		f.add("timeout", "goes with force only")
	}
	return f
}
