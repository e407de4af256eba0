package template

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Source is where an image is read from. Headers are sent to the host of the
// URL only, not to where it redirects.
type Source struct {
	URL     string
	Headers map[string]string
}

// Download is the [Fetcher] of a host: http, https, and files under folders
// that the configuration names.
type Download struct {
	http  *httpFetcher
	files []string
}

// NewDownload makes a fetcher. files are the folders from which file:// may
// read; with none, it may not.
func NewDownload(o HTTPOptions, files ...string) *Download {
	return &Download{http: newHTTPFetcher(o), files: files}
}

// Close lets go of idle connections.
func (d *Download) Close() { d.http.client.CloseIdleConnections() }

// Check refuses a scheme, or a file outside of the folders.
func (d *Download) Check(src Source) error {
	u, err := url.Parse(src.URL)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "http", "https":
		return nil
	case "file":
		_, _, err := d.place(u)
		return err
	}
	return fmt.Errorf("scheme %q: %w", u.Scheme, ErrForbidden)
}

// Open begins to read the image.
func (d *Download) Open(ctx context.Context, src Source) (Content, error) {
	u, err := url.Parse(src.URL)
	if err != nil {
		return Content{}, err
	}
	if u.Scheme == "file" {
		return d.openFile(u)
	}
	return d.http.open(ctx, u, src.Headers)
}

// place splits a file's path into one of the folders and the rest.
func (d *Download) place(u *url.URL) (folder, rest string, err error) {
	for _, folder := range d.files {
		if rest, err := filepath.Rel(folder, filepath.Clean(u.Path)); err == nil && filepath.IsLocal(rest) {
			return folder, rest, nil
		}
	}
	return "", "", fmt.Errorf("file %q is under none of the configured folders: %w", u.Path, ErrForbidden)
}

func (d *Download) openFile(u *url.URL) (Content, error) {
	folder, rest, err := d.place(u)
	if err != nil {
		return Content{}, err
	}
	// A Root does not let a link lead out of the folder.
	root, err := os.OpenRoot(folder)
	if err != nil {
		return Content{}, err
	}
	defer func() { _ = root.Close() }()
	// O_NONBLOCK: opening a pipe must not wait for its writer.
	file, err := root.OpenFile(rest, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Content{}, err
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return Content{}, fmt.Errorf("file %q is no regular file: %w", u.Path, ErrForbidden)
	}
	return Content{file, info.Size()}, nil
}
