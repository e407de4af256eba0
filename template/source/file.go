package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wherry-kvm/wherry/template/fault"
)

// fileOrigin is an image in a folder of this host that the configuration names.
type fileOrigin struct {
	folders []string
	path    string
}

// Name gives the URL.
func (o *fileOrigin) Name() string { return fault.Clean("file://"+o.path, 300) }

// Open begins to read at at.Offset, if the file is still the same.
func (o *fileOrigin) Open(ctx context.Context, at At) (Stream, error) {
	file, info, err := o.open()
	if err != nil {
		return Stream{}, err
	}
	s := Stream{ReadCloser: &fileContent{file: file, ctx: ctx}, Validator: stamp(info)}
	if at.Offset > 0 && at.Validator == s.Validator && at.Offset <= s.Total {
		s.Offset = at.Offset
	}
	if _, err := file.Seek(s.Offset, io.SeekStart); err != nil {
		file.Close()
		return Stream{}, fault.Of(err)
	}
	return s, nil
}

func (o *fileOrigin) open() (*os.File, fs.FileInfo, error) {
	folder, rest, err := place(o.folders, o.path)
	if err != nil {
		return nil, nil, err
	}
	// A Root does not let a link lead out of the folder.
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, nil, o.fault(err)
	}
	defer func() { _ = root.Close() }() // it was only read
	// O_NONBLOCK: opening a pipe must not wait for its writer.
	file, err := root.OpenFile(rest, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, o.fault(err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
		err = o.fault(err)
	case !info.Mode().IsRegular():
		err = fault.New(fault.NotAnImage, "file %q is no regular file", o.path)
	default:
		return file, info, nil
	}
	file.Close()
	return nil, nil, err
}

func (o *fileOrigin) fault(err error) error {
	_, numbered := errors.AsType[syscall.Errno](err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NoSource, "file %q does not exist: %w", o.path, err)
	case !numbered:
		// Not the kernel but Root refused: a link that leads out of the folder.
		return fault.New(fault.FileFolder, "file %q leads out of the configured folder: %w", o.path, err)
	}
	return fault.Of(err)
}

// place splits a file's path into one of the folders and the rest.
func place(folders []string, path string) (folder, rest string, err error) {
	for _, folder := range folders {
		if rest, err := filepath.Rel(folder, filepath.Clean(path)); err == nil && filepath.IsLocal(rest) {
			return folder, rest, nil
		}
	}
	return "", "", fault.New(fault.FileFolder, "file %q is under none of the configured folders", path)
}

// stamp tells files apart: another inode, length or time is another content.
func stamp(info fs.FileInfo) Validator {
	v := Validator{Total: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		v.ETag = fmt.Sprintf(`"%x-%x-%x-%x"`, st.Dev, st.Ino, info.ModTime().UnixNano(), st.Ctim.Nano())
	}
	return v
}

// fileContent ends with its context, like every other stream.
type fileContent struct {
	file *os.File
	ctx  context.Context
}

func (c *fileContent) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, fault.Of(context.Cause(c.ctx))
	}
	n, err := c.file.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case c.ctx.Err() != nil: // and so somebody closed the file meanwhile
		err = context.Cause(c.ctx)
	}
	return n, fault.Of(err)
}

func (c *fileContent) Close() error { return c.file.Close() }
