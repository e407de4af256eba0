package incoming

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// errElsewhere: what was made cannot be seen where it was made, which is no sign
// that it is gone. A pool that is not mounted has it again tomorrow.
var errElsewhere = errors.New("its pool is not mounted, or something else is mounted there")

// removeVolumes deletes what the journal says this reservation made. As long as
// it gives an error, something may be left, and the reservation stays.
func (s *Service) removeVolumes(e *entry) error {
	var errs []error
	for _, v := range e.snapshot().Volumes {
		errs = append(errs, s.takeBack(v))
	}
	return errors.Join(errs...)
}

// takeBack deletes one volume: the file with the reservation's own temporary
// name, and the one whose identity was written down, under any name that it may
// have got since. That none is there counts in the folder in which they were
// made alone, which must be the same before and after.
func (s *Service) takeBack(v madeVolume) error {
	v, err := v.here()
	if err != nil {
		return err
	}
	var errs []error
	own, err := volume.Identify(v.Temp)
	switch {
	case err == nil:
		errs = append(errs, own.Remove())
	case !notOurs(err):
		errs = append(errs, err)
	}
	errs = append(errs, s.dropRef(v.Temp))
	if v.Owned != nil {
		errs = append(errs, s.removeOwned(v))
	}
	_, err = v.here()
	return errors.Join(append(errs, err)...)
}

func (s *Service) removeOwned(v madeVolume) error {
	var errs []error
	if v.Owned.Removing() { // an earlier removal broke off
		errs = append(errs, v.Owned.Remove(), s.dropRef(v.Owned.Path))
	}
	for _, name := range v.Names {
		own := *v.Owned
		own.Path = name
		switch err := own.Verify(); {
		case err == nil:
			errs = append(errs, own.Remove(), s.dropRef(name))
		case !notOurs(err):
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// here gives the volume as it is to be looked for now: in a file system that was
// mounted anew, and has another number, its file has that number too. It fails
// where the folder is not the one in which the volume was made.
func (v madeVolume) here() (madeVolume, error) {
	if v.Folder == nil {
		return v, nil // made by an agent that did not write it down
	}
	dir := filepath.Dir(v.Temp)
	now, err := identifyFolder(dir)
	switch {
	case err != nil && !notOurs(err):
		return v, err
	case err != nil:
		return v, fmt.Errorf("the volume of disk %q was made in %s, which is not there: %w", v.Target, dir, errElsewhere)
	case !sameFolder(*v.Folder, now):
		return v, fmt.Errorf("the volume of disk %q was made in %s when that was inode %d on device %d, and it is inode %d on device %d: %w",
			v.Target, dir, v.Folder.Ino, v.Folder.Dev, now.Ino, now.Dev, errElsewhere)
	}
	// Without its time of birth a file is not known again by its number alone.
	if o := v.Owned; o != nil && o.Born != 0 && o.Dev == v.Folder.Dev && now.Dev != o.Dev {
		moved := *o
		moved.Dev, v.Owned = now.Dev, &moved
	}
	return v, nil
}

// identifyFolder gives the identity of a pool's folder, which a link may lead to.
func identifyFolder(dir string) (volume.Owned, error) {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return volume.Owned{}, err
	}
	return volume.Identify(resolved)
}

// sameFolder goes by the time of birth where both are known, which no two
// folders of one number share: a file system may have another device number
// after it was mounted anew.
func sameFolder(was, now volume.Owned) bool {
	if was.Born != 0 && now.Born != 0 {
		return was.Ino == now.Ino && was.Born == now.Born
	}
	return was.Ino == now.Ino && was.Dev == now.Dev
}

// owe writes down why a reservation cannot be taken back yet. The lease's end
// asks again.
func (s *Service) owe(e *entry, why error) {
	p := api.NewProblem("conflict", "what was made for this reservation is not all taken back: %w", why).WithHint("%s", owedHint(e.id, why))
	if err := s.update(e, func(r *reservation) { r.Owes, r.Error = true, p }); err != nil {
		s.Log.Error("journalling what is left of a reservation", "reservation", e.id, "error", err)
	}
}

func owedHint(id string, why error) string {
	if !errors.Is(why, errElsewhere) {
		return "this is tried again by itself"
	}
	return fmt.Sprintf("mount the pool: this is tried again by itself. If it is gone for good, `wherry operation resolve %s --keep source --other-host has-it` on this host forgets what was in it", id)
}
