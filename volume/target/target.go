package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// The types of target.
const (
	TypeFile      = "file"
	TypeISCSI     = "iscsi"
	TypePowerFlex = "powerflex"
	TypeRBD       = "rbd"
)

var (
	// ErrUnknownType says that no connector handles a target's type.
	ErrUnknownType = errors.New("unknown target type")
	// ErrInvalid says that a target's own fields make no sense.
	ErrInvalid = errors.New("invalid target")
	// ErrNotAllowed says that a path lies outside the configured folders.
	ErrNotAllowed = errors.New("path lies outside the allowed folders")
	// ErrNoPath says that a connector succeeded without giving a path.
	ErrNoPath = errors.New("no connected path")
)

// CHAP is an iSCSI login. Its secret is never printed, nor part of a path.
type CHAP struct {
	User, Secret string
}

// String hides the secret.
func (c CHAP) String() string { return fmt.Sprintf("{%s ***}", c.User) }

// GoString hides the secret.
func (c CHAP) GoString() string { return c.String() }

// Target is one storage endpoint. Type says which of the other fields count.
type Target struct {
	Type string
	// Path is the file, folder or block device (file).
	Path string
	// Portal is HOST or HOST:PORT, IQN the target's name, LUN the unit in it,
	// CHAP the login if one is needed (iscsi).
	Portal, IQN string
	LUN         int
	CHAP        *CHAP
	// SecretName is where the host keeps the password of the login (iscsi).
	SecretName string
	// SystemID and VolumeID are hexadecimal, in either case (powerflex).
	SystemID, VolumeID string
	// Pool and Image name the image; Monitors are HOST or HOST:PORT, and may
	// be left to the host's own ceph.conf (rbd).
	Pool, Image string
	Monitors    []string
}

// String names the target for messages; it holds no secret.
func (t Target) String() string {
	switch t.Type {
	case TypeFile:
		return fmt.Sprintf("file %q", t.Path)
	case TypeISCSI:
		return fmt.Sprintf("iscsi %q", fmt.Sprintf("%s/%s/%d", t.Portal, t.IQN, t.LUN))
	case TypePowerFlex:
		return fmt.Sprintf("powerflex %q", t.SystemID+"-"+t.VolumeID)
	case TypeRBD:
		return fmt.Sprintf("rbd %q", t.Pool+"/"+t.Image)
	}
	return fmt.Sprintf("target of type %q", t.Type)
}

// equal says whether two targets are the same endpoint; the login is no part of that.
func (t Target) equal(o Target) bool {
	return t.Type == o.Type && t.Path == o.Path && t.Portal == o.Portal && t.IQN == o.IQN && t.LUN == o.LUN &&
		t.SystemID == o.SystemID && t.VolumeID == o.VolumeID && t.Pool == o.Pool && t.Image == o.Image &&
		slices.Equal(t.Monitors, o.Monitors)
}

// Connector connects targets of one type. Both methods are idempotent, return
// soon after ctx ends, and carry the words of whatever refused (the initiator,
// the driver, the file system) in their error.
type Connector interface {
	// Connect makes the target reachable and returns the path that QEMU opens
	// it by. It has really been reached when Connect returns. Connecting what
	// is connected already is success. Fails with ErrInvalid or the cause.
	Connect(ctx context.Context, t Target) (path string, err error)
	// Disconnect undoes Connect. What is not connected is success.
	Disconnect(ctx context.Context, t Target) error
}

// Prober is implemented by connectors that leave something on the host. A Set
// asks before it connects, so as to undo only what it did itself; a connector
// without it is taken to have connected anew.
type Prober interface {
	// Connected says whether the target is connected, without changing anything.
	Connected(ctx context.Context, t Target) (bool, error)
}

// Sizer is implemented by connectors that can tell a target's size. A disk
// moves onto a target only if both have the same virtual size.
type Sizer interface {
	// VirtualSize is the size of a connected target in bytes.
	VirtualSize(ctx context.Context, t Target) (int64, error)
}
