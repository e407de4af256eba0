package cleanup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/durable"
	"github.com/wherry-kvm/wherry/http/api"
)

// Note says that an instance is to be cleaned up after.
type Note struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	UUID    string `json:"uuid"`
	// PowerState is what its record is to say; "" = what it says already.
	PowerState string    `json:"power_state,omitempty"`
	Since      time.Time `json:"since"`
	// Failure is why the last try did not do it all.
	Failure string `json:"failure,omitempty"`
}

// Ref names the instance.
func (n Note) Ref() api.Ref { return api.Ref{Project: n.Project, Name: n.Name} }

const (
	suffix  = ".json"
	maxNote = 64 << 10
)

// Owe notes, durably, that an instance is to be cleaned up after. Call it
// before its process is ended.
func (c Cleaner) Owe(n Note) error {
	path, err := c.path(n.Ref())
	if err != nil {
		return err
	}
	data, err := json.Marshal(n)
	if err == nil {
		err = durable.WriteFile(path, data)
	}
	if err != nil {
		return fmt.Errorf("noting the clean-up of %q: %w", n.Ref(), err)
	}
	return nil
}

// Forget takes a note back: the instance runs on, or is no more. None there is
// no error.
func (c Cleaner) Forget(ref api.Ref) error {
	path, err := c.path(ref)
	if err != nil {
		return err
	}
	if err := errors.Join(durable.Remove(path), durable.Tidy(path, c.Now().Add(-youngest))); err != nil {
		return fmt.Errorf("removing the note of the clean-up of %q: %w", ref, err)
	}
	return nil
}

// Owed gives the note of an instance; false where nothing is owed.
func (c Cleaner) Owed(ref api.Ref) (Note, bool, error) {
	path, err := c.path(ref)
	if err != nil {
		return Note{}, false, err
	}
	n, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Note{}, false, nil
	}
	return n, err == nil, err
}

// Pending gives every note that can be read, and the errors of those that
// cannot, joined: one that is damaged hides no other.
func (c Cleaner) Pending() ([]Note, error) {
	paths, err := filepath.Glob(filepath.Join(c.Dir, "*", "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("listing clean-ups: %w", err)
	}
	var out []Note
	var errs []error
	for _, path := range paths {
		n, err := read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // done meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, n)
	}
	return out, errors.Join(errs...)
}

// read refuses a note that says it is another instance's than its place does.
func read(path string) (n Note, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return n, err
	}
	if info.Size() > maxNote {
		return n, fmt.Errorf("the note %s is %d bytes long, more than %d", path, info.Size(), maxNote)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return n, fmt.Errorf("the note %s is damaged: %w", path, err)
	}
	if n.UUID == "" || n.Name+suffix != filepath.Base(path) || n.Project != filepath.Base(filepath.Dir(path)) {
		return n, fmt.Errorf("the note %s is damaged: it is of %q, UUID %q", path, n.Ref(), n.UUID)
	}
	return n, nil
}

// path refuses names that would leave the folder.
func (c Cleaner) path(ref api.Ref) (string, error) {
	for _, s := range []string{ref.Project, ref.Name} {
		if s == "" || strings.ContainsAny(s, "/\x00") || strings.HasPrefix(s, ".") {
			return "", fmt.Errorf("%q cannot be the name of a note", s)
		}
	}
	return filepath.Join(c.Dir, ref.Project, ref.Name+suffix), nil
}
