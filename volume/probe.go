package volume

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// Probe is a small file that one host leaves in a folder for another to look
// for: whoever sees it there has the same storage, whatever the folder is
// called on either side.
type Probe struct {
	Name  string `json:"name"`
	Token string `json:"token"`
}

const probePrefix = ".wherry-probe-"

// Both parts come from a peer: the name is joined to a folder, so it must be a
// name that WriteProbe makes and can be nothing else.
var (
	probeName  = regexp.MustCompile(`^\.wherry-probe-[0-9a-f]{32}$`)
	probeToken = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Valid says whether the probe can have come from WriteProbe.
func (p Probe) Valid() bool { return probeName.MatchString(p.Name) && probeToken.MatchString(p.Token) }

// NewProbe gives a probe that is nowhere yet: whoever may be lost while it is there
// writes it down first.
func NewProbe() Probe { return Probe{Name: probePrefix + randomHex(16), Token: randomHex(32)} }

// WriteProbe leaves a fresh probe in the folder dir, see [Probe.Write].
func WriteProbe(dir string) (p Probe, remove func() error, err error) {
	p = NewProbe()
	if remove, err = p.Write(dir); err != nil {
		return Probe{}, nil, err
	}
	return p, remove, nil
}

// Write leaves the probe in the folder dir. The caller must call remove, which
// deletes that very file and may be called more than once.
func (p Probe) Write(dir string) (remove func() error, err error) {
	path := filepath.Join(dir, p.Name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write probe: %w", err)
	}
	own, err := identify(f, path)
	if err == nil {
		_, err = f.WriteString(p.Token)
	}
	// Network file systems send the bytes at close at the latest.
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("write probe: %w", errors.Join(err, os.Remove(path)))
	}
	return own.removeProbe, nil
}

// Remove deletes a probe of an earlier run from the folder dir, whole or not: its
// name is nobody else's. One that is not there is removed already.
func (p Probe) Remove(dir string) error {
	if !p.Valid() {
		return fmt.Errorf("remove probe: %q is none", p.Name)
	}
	if err := os.Remove(filepath.Join(dir, p.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove probe: %w", err)
	}
	return nil
}

// removeProbe unlinks without asking who has the file open: a peer that is
// looking at it is no reason to leave it.
func (o Owned) removeProbe() error {
	err := o.Verify()
	if err == nil {
		err = os.Remove(o.Path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// SeesProbe says whether the folder dir holds the probe. Anything in doubt is
// no: a probe with a name that WriteProbe does not make, another content, a
// symbolic link.
func SeesProbe(dir string, p Probe) bool {
	if !p.Valid() {
		return false
	}
	f, err := openImage(filepath.Join(dir, p.Name), unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, int64(len(p.Token))+1))
	return err == nil && string(content) == p.Token
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
