// Package partial keeps an image that is being written: in a private folder
// that nobody else looks into, with the sums of its bytes, and with a state
// beside it from which another process goes on.
//
// The state never says more than the disk holds: it is written after the bytes
// it speaks of were synced, and is durably gone before they are given up.
package partial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/digest"
)

// Names in the folder.
const (
	imageName = "image"
	stateName = "state"
	stateTemp = "state.new"
)

// Partial is an image being written. It is for one goroutine at a time.
type Partial struct {
	path  string
	inode uint64
	root  *os.Root
	image *os.File
	size  int64 // bytes written and summed
	sums  *digest.Sums
	// torn: bytes and sums may disagree, so that nothing more may be saved.
	torn bool
}

// Make makes the folder at path, which must not exist, with an empty image.
// Journal path before, and Inode after.
func Make(path string) (*Partial, error) {
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	return open(path, 0, os.O_CREATE|os.O_EXCL)
}

// Open opens what an earlier process made. The error is fs.ErrNotExist where
// there is nothing, or something that is not that folder.
func Open(path string, inode uint64) (*Partial, error) { return open(path, inode, 0) }

func open(path string, inode uint64, flags int) (*Partial, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	p := &Partial{path: path, root: root, sums: digest.New()}
	info, err := root.Stat(".")
	if err == nil {
		p.inode = inodeOf(info)
		if inode != 0 && p.inode != inode {
			err = fmt.Errorf("%q is another folder: %w", path, fs.ErrNotExist)
		}
	}
	if err == nil {
		p.image, err = root.OpenFile(imageName, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|flags, 0o600)
	}
	if err == nil {
		info, err = p.image.Stat()
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q holds no regular file: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Path of the folder.
func (p *Partial) Path() string { return p.path }

// Inode of the folder, by which [Remove] knows it again.
func (p *Partial) Inode() uint64 { return p.inode }

// Image is the file; it is closed by Close.
func (p *Partial) Image() *os.File { return p.image }

// ImagePath is where the file lies.
func (p *Partial) ImagePath() string { return filepath.Join(p.path, imageName) }

// Size is how many bytes were written.
func (p *Partial) Size() int64 { return p.size }

// Sums are the checksums of the bytes, as asked for by Begin or Resume.
func (p *Partial) Sums() *digest.Sums { return p.sums }

// Close closes the files and removes nothing.
func (p *Partial) Close() {
	if p.image != nil {
		p.image.Close()
	}
	_ = p.root.Close() // it only was read through
}

// Begin empties the image and takes other sums.
func (p *Partial) Begin(sums *digest.Sums) error {
	// The state must not outlive the bytes it speaks of: other bytes would be
	// taken for those that were summed.
	if err := p.root.Remove(stateName); err == nil {
		if err := p.syncFolder(); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := p.image.Truncate(0); err != nil {
		return err
	}
	p.size, p.sums, p.torn = 0, sums, false
	return nil
}

func (p *Partial) syncFolder() error {
	d, err := p.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Remove removes a partial folder with what this package puts there, known by
// path and inode; with inode 0 the path alone is proof. What is not there, or
// is another, is no error. A plain file is what earlier versions wrote.
func Remove(path string, inode uint64) error {
	if path == "" {
		return nil
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if inode != 0 && inodeOf(info) != inode {
		return nil
	}
	if info.IsDir() {
		if err := empty(path, inode); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

func empty(path string, inode uint64) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	if inode != 0 && inodeOf(info) != inode {
		return fmt.Errorf("%q was replaced: %w", path, fs.ErrExist)
	}
	// The image first: it is what takes the room, even if the folder cannot go.
	for _, name := range []string{imageName, stateName, stateTemp} {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func inodeOf(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
