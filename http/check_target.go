package http

import (
	"fmt"
	"regexp"

	"github.com/wherry-kvm/wherry/http/api"
)

// maxTargets bounds the targets of one call.
const maxTargets = 256

var (
	// The three name forms of RFC 7143, section 4.2.7.
	iqnPattern = regexp.MustCompile(`^(iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.:-]+|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16}([0-9A-Fa-f]{16})?)$`)
	// PowerFlex identifies systems and volumes by hexadecimal numbers.
	powerflexPattern = regexp.MustCompile(`^[0-9A-Fa-f]{1,32}$`)
	// Ceph pool and image names that fit into "rbd:POOL/IMAGE" unquoted.
	rbdPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
)

func checkTargets(r api.TargetsRequest) (f faults) {
	if len(r.Targets) == 0 {
		f.add("targets", "is missing or empty")
	}
	if len(r.Targets) > maxTargets {
		f.add("targets", "has %d entries, at most %d are taken", len(r.Targets), maxTargets)
		return f
	}
	for i, t := range r.Targets {
		f.target(fmt.Sprintf("targets[%d].", i), t)
	}
	return f
}

// target checks the fields that the target's type needs.
func (f *faults) target(at string, t api.Target) {
	switch t.Type {
	case "file":
		f.file(at+"path", t.Path)
	case "iscsi":
		f.portal(at+"portal", t.Portal)
		f.match(iqnPattern, at+"iqn", t.IQN, "must be an iSCSI name (iqn., eui. or naa.)")
		if t.LUN < 0 || t.LUN > 16383 {
			f.add(at+"lun", "must be 0 to 16383")
		}
		if t.CHAP != nil {
			f.given(at+"chap.user", t.CHAP.User)
			f.given(at+"chap.secret", t.CHAP.Secret)
		}
	case "powerflex":
		f.match(powerflexPattern, at+"system_id", t.SystemID, "must be a hexadecimal number")
		f.match(powerflexPattern, at+"volume_id", t.VolumeID, "must be a hexadecimal number")
	case "rbd":
		f.match(rbdPattern, at+"pool", t.Pool, "must be 1 to 128 letters, digits, dots, dashes or underscores")
		f.match(rbdPattern, at+"image", t.Image, "must be 1 to 128 letters, digits, dots, dashes or underscores")
		for i, m := range t.Monitors {
			f.portal(fmt.Sprintf("%smonitors[%d]", at, i), m)
		}
	case "":
		f.add(at+"type", "is missing")
	default:
		f.oneOf(at+"type", t.Type, "file", "iscsi", "powerflex", "rbd")
	}
}
