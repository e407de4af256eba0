package target

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/volume"
)

// RBD connects Ceph images through QEMU's own driver, which needs the package
// qemu-block-extra and the host's Ceph configuration and key.
type RBD struct {
	Runner volume.Runner
	// Timeout bounds the look at the image; 0 means DefaultTimeout.
	Timeout time.Duration
}

var (
	_ Connector = RBD{}
	_ Prober    = RBD{}
	_ Sizer     = RBD{}
)

// rbdName leaves out what has a meaning in an rbd: path (: / @ = and backslash).
var rbdName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// Connect opens the image and returns "rbd:POOL/IMAGE", with the monitors if
// any are given. Fails with QEMU's own words, also where it has no driver.
func (c RBD) Connect(ctx context.Context, t Target) (string, error) {
	if _, err := c.VirtualSize(ctx, t); err != nil {
		return "", err
	}
	path := "rbd:" + t.Pool + "/" + t.Image
	if len(t.Monitors) > 0 {
		hosts := strings.Join(t.Monitors, ";")
		path += ":mon_host=" + strings.NewReplacer(":", `\:`, ";", `\;`).Replace(hosts)
	}
	return path, nil
}

// Connected is always true: opening an image leaves nothing to undo.
func (c RBD) Connected(context.Context, Target) (bool, error) { return true, nil }

// Disconnect has nothing to do.
func (c RBD) Disconnect(context.Context, Target) error { return nil }

// VirtualSize opens the image and asks for its size in bytes.
func (c RBD) VirtualSize(ctx context.Context, t Target) (int64, error) {
	if !rbdName.MatchString(t.Pool) || !rbdName.MatchString(t.Image) {
		return 0, fmt.Errorf("%w: image %q", ErrInvalid, t.Pool+"/"+t.Image)
	}
	options := [][2]string{{"driver", "rbd"}, {"pool", t.Pool}, {"image", t.Image}}
	for i, monitor := range t.Monitors {
		host, port, err := monitorAddress(monitor)
		if err != nil {
			return 0, err
		}
		key := "server." + strconv.Itoa(i) + "."
		options = append(options, [2]string{key + "host", host}, [2]string{key + "port", port})
	}
	size, err := probe(ctx, c.Runner, c.Timeout, imageOptions(options...))
	if err != nil {
		return 0, fmt.Errorf("%w (QEMU's rbd driver comes with the package qemu-block-extra)", err)
	}
	return size, nil
}

// monitorAddress splits HOST or HOST:PORT; the port defaults to 6789, where
// monitors speak the first version of Ceph's messenger protocol.
func monitorAddress(s string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), "6789"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !portalHost.MatchString(host) {
		return "", "", fmt.Errorf("%w: monitor %q", ErrInvalid, s)
	}
	return host, port, nil
}
