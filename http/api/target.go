package api

import (
	"fmt"
	"net"
	"strings"
)

// Target is a storage endpoint that a host must connect before a path exists
// there. Which fields count depends on Type.
type Target struct {
	Type     string   `json:"type"`
	Path     string   `json:"path,omitempty"`
	Portal   string   `json:"portal,omitempty"`
	IQN      string   `json:"iqn,omitempty"`
	LUN      int      `json:"lun,omitempty"`
	CHAP     *CHAP    `json:"chap,omitempty"`
	SystemID string   `json:"system_id,omitempty"`
	VolumeID string   `json:"volume_id,omitempty"`
	Pool     string   `json:"pool,omitempty"`
	Image    string   `json:"image,omitempty"`
	Monitors []string `json:"monitors,omitempty"`
}

// SecretUsage is the name under which every host's libvirt keeps the password
// of an iSCSI login, so that the XML of a disk means the same on all of them.
func (t Target) SecretUsage() string {
	host, port, err := net.SplitHostPort(t.Portal)
	if err != nil {
		host, port = strings.Trim(t.Portal, "[]"), "3260"
	}
	return fmt.Sprintf("wherry iscsi://%s/%s/%d", net.JoinHostPort(host, port), t.IQN, t.LUN)
}

// CHAP is an iSCSI login. The secret is never logged nor shown.
type CHAP struct {
	User   string `json:"user"`
	Secret string `json:"secret"`
}

// TargetsRequest connects (Add) or disconnects targets.
type TargetsRequest struct {
	Add     bool     `json:"add"`
	Targets []Target `json:"targets"`
}

// TargetsResponse gives the path of each connected target, by its index.
type TargetsResponse struct {
	Connected []ConnectedTarget `json:"connected"`
}

// ConnectedTarget is one connected target. Size is its virtual size in bytes,
// 0 where it cannot be told.
type ConnectedTarget struct {
	Index int    `json:"index"`
	Path  string `json:"path"`
	Size  int64  `json:"size,omitempty"`
}
