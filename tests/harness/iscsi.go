package harness

import (
	"context"
	"fmt"
	"strings"
)

// ExportISCSI offers a file of the host as logical unit 1 of an iSCSI target and returns the unit's URL, which both
// hosts reach. The target's number must be free on the host; EndISCSI ends all of them.
func (h *Host) ExportISCSI(ctx context.Context, number int, iqn, path string) (string, error) {
	if err := h.lab.control(ctx, "tgtd", h.Name, "start"); err != nil {
		return "", err
	}
	tid := fmt.Sprint(number)
	for _, words := range [][]string{
		{"--op", "new", "--mode", "target", "--tid", tid, "--targetname", iqn},
		{"--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "--backing-store", path},
		{"--op", "bind", "--mode", "target", "--tid", tid, "--initiator-address", "ALL"},
	} {
		if _, err := h.Exec(ctx, append([]string{"tgtadm", "--lld", "iscsi"}, words...)...); err != nil {
			return "", err
		}
	}
	address, err := h.address(ctx)
	return fmt.Sprintf("iscsi://%s/%s/1", address, iqn), err
}

// EndISCSI ends the host's targets, connected or not.
func (h *Host) EndISCSI(ctx context.Context) error {
	return h.lab.control(ctx, "tgtd", h.Name, "stop")
}

// address is the IPv4 address by which the peer knows the host.
func (h *Host) address(ctx context.Context) (string, error) {
	out, err := h.Peer().Exec(ctx, "getent", "ahostsv4", h.Hostname())
	address, _, _ := strings.Cut(out, " ")
	return address, err
}
