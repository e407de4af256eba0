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

// Secrets keeps passwords of iSCSI logins on the host, where an instance's QEMU
// gets them from.
type Secrets interface {
	HasSecret(ctx context.Context, name string) (bool, error)
	// SetSecret keeps a password under a name, or replaces it.
	SetSecret(ctx context.Context, name, password string) error
	// RemoveSecret forgets a password; none of that name is no error.
	RemoveSecret(ctx context.Context, name string) error
}

// ISCSI connects LUNs through QEMU's own initiator, which needs the package
// qemu-block-extra. QEMU logs in when it opens the path, and Connect proves that
// it can. All that stays on the host is the password of a login.
type ISCSI struct {
	Runner volume.Runner
	// Secrets, where it is not nil, keeps the passwords of logins.
	Secrets Secrets
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
	if c.keeps(t) && t.CHAP != nil {
		if err := c.Secrets.SetSecret(ctx, t.SecretName, t.CHAP.Secret); err != nil {
			return "", err
		}
	}
	return "iscsi://" + portal + "/" + t.IQN + "/" + strconv.Itoa(t.LUN), nil
}

// Connected tells whether the login's password is kept. Without a login there
// is nothing that could be undone, so it is true.
func (c ISCSI) Connected(ctx context.Context, t Target) (bool, error) {
	if !c.keeps(t) || t.CHAP == nil {
		return true, nil
	}
	return c.Secrets.HasSecret(ctx, t.SecretName)
}

// Disconnect forgets the login's password, known to the caller or not.
func (c ISCSI) Disconnect(ctx context.Context, t Target) error {
	if !c.keeps(t) {
		return nil
	}
	return c.Secrets.RemoveSecret(ctx, t.SecretName)
}

func (c ISCSI) keeps(t Target) bool { return c.Secrets != nil && t.SecretName != "" }

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
