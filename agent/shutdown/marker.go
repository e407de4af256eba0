package shutdown

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/agent/durable"
	"github.com/wherry-kvm/wherry/http/api"
)

// Marker is what a shutdown leaves on disk for the next start of the agent.
type Marker struct {
	// BootID is the kernel's: another one means that the host has been down.
	BootID   string    `json:"boot_id"`
	Began    time.Time `json:"began"`
	Deadline time.Time `json:"deadline"`
	// By is who does it: "agent" or "command".
	By string `json:"by"`
	// Ran are the instances that were running, whoever started them.
	Ran []Ran `json:"ran"`
	// Result is there when it has ended.
	Result *api.ShutdownResult `json:"result,omitempty"`
}

// Ran is an instance that a shutdown found running.
type Ran struct {
	Project  string `json:"project"`
	Name     string `json:"name"`
	UUID     string `json:"uuid"`
	Priority int    `json:"priority"`
	// Stopping: it is not to run, since the operator was stopping it already, or
	// another host has it, or may.
	Stopping bool `json:"stopping,omitempty"`
}

// Place is where the shutdown of a host is noted, and held by whoever does it:
// two at once, one of them perhaps without an agent, must not both climb.
type Place struct {
	Dir string // the agent's state folder
}

const (
	markerName = "shutdown.json"
	takenName  = "start-again.json"
	lockName   = "shutdown.lock"
	maxMarker  = 16 << 20
	bootIDPath = "/proc/sys/kernel/random/boot_id"
)

// ErrHeld says that somebody else shuts the host down.
var ErrHeld = errors.New("a shutdown is under way already")

// BootID tells one run of the kernel from another (random(4)).
func BootID() (string, error) {
	b, err := os.ReadFile(bootIDPath)
	return strings.TrimSpace(string(b)), err
}

// Hold takes the place until release is called, or the process ends: a crash
// leaves nothing. ErrHeld when somebody has it.
func (p Place) Hold() (release func(), err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(p.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// The lock is the open file's (flock(2)), not the process's: in one process
	// too the second is refused.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrHeld
		}
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// Read gives the marker; false where there is none.
func (p Place) Read() (m Marker, ok bool, err error) { return p.read(markerName) }

// Take takes the marker up, so that the host is no longer marked, and gives it;
// also one that was taken up before and not done with.
func (p Place) Take() (m Marker, ok bool, err error) {
	err = os.Rename(filepath.Join(p.Dir, markerName), filepath.Join(p.Dir, takenName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, false, err
	}
	return p.read(takenName)
}

// Taken gives the marker that was taken up and not done with; false where there
// is none.
func (p Place) Taken() (m Marker, ok bool, err error) { return p.read(takenName) }

// Done forgets the marker that was taken up.
func (p Place) Done() error { return durable.Remove(filepath.Join(p.Dir, takenName)) }

func (p Place) read(name string) (m Marker, ok bool, err error) {
	path := filepath.Join(p.Dir, name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err == nil && info.Size() > maxMarker {
		err = fmt.Errorf("%s is %d bytes long, more than %d", path, info.Size(), maxMarker)
	}
	if err != nil {
		return m, false, err
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, false, fmt.Errorf("the note of the shutdown %s: %w", path, err)
	}
	return m, true, nil
}

// Write notes how far the shutdown is, durably.
func (p Place) Write(m Marker) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(p.Dir, markerName), data)
}

// Marked tells whether a shutdown was begun and not yet dealt with.
func (p Place) Marked() bool {
	_, err := os.Lstat(filepath.Join(p.Dir, markerName))
	return err == nil
}

// Remove takes the note back: what it says has been done, or the host stays up.
func (p Place) Remove() error { return durable.Remove(filepath.Join(p.Dir, markerName)) }
