package target

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/volume"
)

// ISCSI connects LUNs through QEMU's own initiator, which needs the package
// qemu-block-extra. Nothing stays on the host: QEMU logs in when it opens the
// path, and Connect proves that it can.
type ISCSI struct {
	Runner volume.Runner
	// Initiator is the initiator's own name; empty means QEMU's default. A
	// storage system that admits initiators by name must admit both this one
	// and the one of the instance's QEMU.
	Initiator string
	// Timeout bounds the login; 0 means DefaultTimeout.
	Timeout time.Duration
}

var (
	_ Connector = ISCSI{}
	_ Prober    = ISCSI{}
	_ Sizer     = ISCSI{}
)

// Names as RFC 3720 (section 3.2.6) allows them; a portal's host has no more
// than host names and addresses need.
var (
	iscsiName  = regexp.MustCompile(`^(iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,219}$`)
	portalHost = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,253}$`)
)

const iscsiPort = "3260"

// Connect logs in and returns "iscsi://PORTAL/IQN/LUN". A wrong portal, name,
// unit or login fails with QEMU's own words. User and secret are not in the
// path: whoever opens it supplies them apart.
func (c ISCSI) Connect(ctx context.Context, t Target) (string, error) {
	if _, err := c.VirtualSize(ctx, t); err != nil {
		return "", err
	}
	portal, err := iscsiPortal(t)
	if err != nil {
		return "", err
	}
	return "iscsi://" + portal + "/" + t.IQN + "/" + strconv.Itoa(t.LUN), nil
}

// Connected is always true: a login leaves nothing that could be undone.
func (c ISCSI) Connected(context.Context, Target) (bool, error) { return true, nil }

// Disconnect has nothing to do.
func (c ISCSI) Disconnect(context.Context, Target) error { return nil }

// VirtualSize logs in and asks the unit for its size in bytes.
func (c ISCSI) VirtualSize(ctx context.Context, t Target) (int64, error) {
	portal, err := iscsiPortal(t)
	if err != nil {
		return 0, err
	}
	options := [][2]string{{"driver", "iscsi"}, {"transport", "tcp"}, {"portal", portal}, {"target", t.IQN}, {"lun", strconv.Itoa(t.LUN)}}
	if c.Initiator != "" {
		options = append(options, [2]string{"initiator-name", c.Initiator})
	}
	if t.CHAP == nil {
		return probe(ctx, c.Runner, c.Timeout, imageOptions(options...))
	}
	secret, err := secretFile(t.CHAP.Secret)
	if err != nil {
		return 0, err
	}
	defer secret.Close()
	object := imageOptions([2]string{"secret,id", "chap"}, [2]string{"file", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), secret.Fd())})
	options = append(options, [2]string{"user", t.CHAP.User}, [2]string{"password-secret", "chap"})
	return probe(ctx, c.Runner, c.Timeout, imageOptions(options...), "--object", object)
}

// secretFile holds a secret in memory, where qemu-img can read it by a path
// but no command line and no disk shows it.
func secretFile(secret string) (*os.File, error) {
	fd, err := unix.MemfdCreate("wherry-chap", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("hold the CHAP secret: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wherry-chap")
	if _, err := f.WriteString(secret); err != nil {
		f.Close()
		return nil, fmt.Errorf("hold the CHAP secret: %w", err)
	}
	return f, nil
}

// iscsiPortal checks the target's fields and returns HOST:PORT.
func iscsiPortal(t Target) (string, error) {
	if !iscsiName.MatchString(t.IQN) {
		return "", fmt.Errorf("%w: iqn %q", ErrInvalid, t.IQN)
	}
	if t.LUN < 0 || t.LUN > 16383 { // the widest flat LUN address, SAM-5
		return "", fmt.Errorf("%w: lun %d", ErrInvalid, t.LUN)
	}
	if t.CHAP != nil && (t.CHAP.User == "" || t.CHAP.Secret == "") {
		return "", fmt.Errorf("%w: chap needs user and secret", ErrInvalid)
	}
	host, port, err := net.SplitHostPort(t.Portal)
	if err != nil {
		host, port = strings.Trim(t.Portal, "[]"), iscsiPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !portalHost.MatchString(host) {
		return "", fmt.Errorf("%w: portal %q", ErrInvalid, t.Portal)
	}
	return net.JoinHostPort(host, port), nil
}
