package inspect

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
)

// powerflexName is the by-id name that the PowerFlex client (SDC) gives a
// volume: emc-vol-SYSTEM-VOLUME.
var powerflexName = regexp.MustCompile(`^emc-vol-([0-9a-f]+)-([0-9a-f]+)$`)

// endpoint gives the target that any host can connect to reach the disk, or
// nil for storage that only this host is known to have.
func endpoint(x domainxml.Disk) *api.Target {
	switch {
	case x.Type == "network" && strings.HasPrefix(x.Source, "iscsi://"):
		return iscsiEndpoint(strings.TrimPrefix(x.Source, "iscsi://"))
	case x.Type == "network" && strings.HasPrefix(x.Source, "rbd:"):
		pool, image, ok := strings.Cut(strings.TrimPrefix(x.Source, "rbd:"), "/")
		if ok {
			return &api.Target{Type: "rbd", Pool: pool, Image: image}
		}
	case x.Type == "block":
		if m := powerflexName.FindStringSubmatch(filepath.Base(x.Source)); m != nil {
			return &api.Target{Type: "powerflex", SystemID: m[1], VolumeID: m[2]}
		}
	}
	return nil
}

// iscsiEndpoint reads PORTAL/IQN/LUN. A portal on the loopback is another
// machine on every host, so it is no common storage.
func iscsiEndpoint(s string) *api.Target {
	parts := strings.SplitN(s, "/", 3)
	if len(parts) != 3 {
		return nil
	}
	lun, err := strconv.Atoi(parts[2])
	if err != nil {
		return nil
	}
	host, _, err := net.SplitHostPort(parts[0])
	if err != nil {
		host = parts[0]
	}
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	return &api.Target{Type: "iscsi", Portal: parts[0], IQN: parts[1], LUN: lun}
}
