package rebuild

import (
	"fmt"
	"slices"

	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// RootOf says which disk an instance starts from: of those with a place in the
// boot order (<boot order='N'/>) the first, and where none has one the first
// hard disk of the definition, which is the one that <boot dev='hd'/> means.
// CD-ROM and floppy drives are never it. A direct kernel boot has no say: the
// kernel's root disk is the first one by custom.
func RootOf(d domainxml.Domain) (domainxml.Disk, error) {
	disks := slices.DeleteFunc(slices.Clone(d.Disks), func(x domainxml.Disk) bool {
		return x.Device == "cdrom" || x.Device == "floppy"
	})
	if len(disks) == 0 {
		return domainxml.Disk{}, fmt.Errorf("the instance has no hard disk")
	}
	ordered := slices.DeleteFunc(slices.Clone(disks), func(x domainxml.Disk) bool { return x.BootOrder == 0 })
	if len(ordered) == 0 {
		return disks[0], nil
	}
	slices.SortStableFunc(ordered, func(a, b domainxml.Disk) int { return a.BootOrder - b.BootOrder })
	if len(ordered) > 1 && ordered[0].BootOrder == ordered[1].BootOrder {
		return domainxml.Disk{}, fmt.Errorf("disks %q and %q have the same place in the boot order", ordered[0].Target, ordered[1].Target)
	}
	return ordered[0], nil
}
