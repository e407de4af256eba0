package partial

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/source"
)

// Key says what the bytes are the beginning of.
type Key struct {
	// Origin is the name of where they come from, Want the checksum that the
	// whole is to have.
	Origin string `json:"origin"`
	Want   string `json:"want"`
	// Validator is what the origin said of its content.
	Validator source.Validator `json:"validator"`
}

// State is what the disk holds for sure: Offset bytes, and the inner states of
// their checksums.
type State struct {
	Key
	Offset int64             `json:"offset"`
	Sums   map[string][]byte `json:"sums"`
}

// maxState bounds the file of a state; a whole one has less than 4 KiB and the
// names in it.
const maxState = 64 << 10

func parseState(b []byte) (State, error) {
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, err
	}
	if s.Offset <= 0 || s.Want == "" || len(s.Sums) == 0 {
		return State{}, errors.New("the state is not whole")
	}
	return s, nil
}

// Saved gives what an earlier process left; false where it left nothing that
// can be used.
func (p *Partial) Saved() (State, bool) {
	file, err := p.root.OpenFile(stateName, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return State{}, false
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxState+1))
	if err != nil || len(b) > maxState {
		return State{}, false
	}
	s, err := parseState(b)
	if err != nil {
		return State{}, false
	}
	info, err := p.image.Stat()
	return s, err == nil && info.Size() >= s.Offset
}

// Resume goes on where the state ends, with sums of the same algorithms.
// After an error, Begin.
func (p *Partial) Resume(s State, sums *digest.Sums) error {
	if err := sums.Restore(s.Sums); err != nil {
		return err
	}
	// Bytes after the state were never synced; where the image has zeros,
	// nothing would be written over them.
	if err := p.image.Truncate(s.Offset); err != nil {
		return err
	}
	p.size, p.sums, p.torn = s.Offset, sums, false
	return nil
}

// Save syncs the bytes and says how many they are, for another process.
func (p *Partial) Save(k Key) error {
	if p.torn || p.size == 0 {
		return nil
	}
	states, err := p.sums.Save()
	if err != nil {
		return err
	}
	return p.save(State{Key: k, Offset: p.size, Sums: states})
}

// save writes a state once its bytes are on the disk.
func (p *Partial) save(s State) error {
	if err := unix.Fdatasync(int(p.image.Fd())); err != nil {
		return fmt.Errorf("syncing %q: %w", p.ImagePath(), err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := p.root.OpenFile(stateTemp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	// Synced before the rename, or a crash could leave an empty state in place
	// of the last good one. The folder needs no sync: the older state that may
	// come back is true as well.
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return p.root.Rename(stateTemp, stateName)
}
