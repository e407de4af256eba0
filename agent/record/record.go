// Package record keeps what a host knows about its instances on its own disk:
// one YAML file each, enough to stop and clean an instance when the store, the
// management server and the network are all gone.
package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wherry-kvm/wherry/agent/durable"
	"github.com/wherry-kvm/wherry/http/api"
)

// ErrNotFound says that the host keeps no record of the instance.
var ErrNotFound = errors.New("no record")

// maxSize bounds a record file: a domain XML is tens of kilobytes.
const maxSize = 4 << 20

// Dir is the folder that holds the records: DIR/PROJECT/NAME.yaml.
type Dir string

// Write stores the record so that it survives a power cut: file and folder are
// synced before it returns. The record may hold CHAP secrets, so only root may
// read it.
func (d Dir) Write(r api.Record) error {
	path, err := d.path(api.Ref{Project: r.Project, Name: r.Name})
	if err != nil {
		return err
	}
	data, err := yaml.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the record of %q: %w", r.Name, err)
	}
	if err := durable.WriteFile(path, data); err != nil {
		return fmt.Errorf("writing the record of %q: %w", r.Name, err)
	}
	return nil
}

// Read gives the record of an instance, or [ErrNotFound].
func (d Dir) Read(ref api.Ref) (api.Record, error) {
	path, err := d.path(ref)
	if err != nil {
		return api.Record{}, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Record{}, fmt.Errorf("%w of %q", ErrNotFound, ref)
	}
	if err != nil {
		return api.Record{}, fmt.Errorf("reading the record of %q: %w", ref, err)
	}
	if info.Size() > maxSize {
		return api.Record{}, fmt.Errorf("the record %s is %d bytes long, more than %d", path, info.Size(), maxSize)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return api.Record{}, fmt.Errorf("reading the record of %q: %w", ref, err)
	}
	var r api.Record
	if err := yaml.Unmarshal(data, &r); err != nil {
		return api.Record{}, fmt.Errorf("the record %s is damaged: %w", path, err)
	}
	return r, nil
}

// Of gives the record of the instance that has the name now: a record with
// another UUID is one that an earlier instance left, and is [ErrNotFound].
func (d Dir) Of(ref api.Ref, uuid string) (api.Record, error) {
	r, err := d.Read(ref)
	if err == nil && r.UUID != uuid {
		return api.Record{}, fmt.Errorf("%w of %q with UUID %s: it is of %s", ErrNotFound, ref, uuid, r.UUID)
	}
	return r, err
}

// Remove deletes the record; none there is no error.
func (d Dir) Remove(ref api.Ref) error {
	path, err := d.path(ref)
	if err != nil {
		return err
	}
	if err := durable.Remove(path); err != nil {
		return fmt.Errorf("removing the record of %q: %w", ref, err)
	}
	return nil
}

// Tidy removes what interrupted writes of the record have left: it holds the
// same secrets. What is younger than the given time may be a write that is
// under way, and stays.
func (d Dir) Tidy(ref api.Ref, before time.Time) error {
	path, err := d.path(ref)
	if err != nil {
		return err
	}
	if err := durable.Tidy(path, before); err != nil {
		return fmt.Errorf("tidying up the record of %q: %w", ref, err)
	}
	return nil
}

// TidyAll is Tidy for every instance, those included that are no more.
func (d Dir) TidyAll(before time.Time) error {
	if err := durable.TidyBelow(string(d), ".yaml", before); err != nil {
		return fmt.Errorf("tidying up the records: %w", err)
	}
	return nil
}

// List gives every record that can be read, and the errors of those that
// cannot, joined: one damaged file hides no other.
func (d Dir) List() ([]api.Record, error) {
	paths, err := filepath.Glob(filepath.Join(string(d), "*", "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("listing records: %w", err)
	}
	var out []api.Record
	var errs []error
	for _, p := range paths {
		name := strings.TrimSuffix(filepath.Base(p), ".yaml")
		r, err := d.Read(api.Ref{Project: filepath.Base(filepath.Dir(p)), Name: name})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

// path refuses names that would leave the folder.
func (d Dir) path(ref api.Ref) (string, error) {
	if ref.Project == "" {
		ref.Project = api.DefaultProject
	}
	for _, s := range []string{ref.Project, ref.Name} {
		if s == "" || strings.ContainsAny(s, "/\x00") || strings.HasPrefix(s, ".") {
			return "", fmt.Errorf("%q cannot be the name of a record", s)
		}
	}
	return filepath.Join(string(d), ref.Project, ref.Name+".yaml"), nil
}
