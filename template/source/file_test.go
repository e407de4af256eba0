package source_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestFile(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a b.raw")
	must(t, os.WriteFile(path, []byte(content), 0o600))
	o := origin(t, download(source.Options{Files: []string{"/elsewhere", folder}}), "file://"+strings.ReplaceAll(path, " ", "%20"), nil)
	if o.Name() != "file://"+path {
		t.Errorf("name %s", o.Name())
	}
	got, stream, err := read(t, o, source.At{})
	if err != nil || got != content || stream.Total != 10 || stream.ETag == "" {
		t.Fatalf("%q, %+v, %v", got, stream, err)
	}
	known := stream.Validator
	got, stream, err = read(t, o, source.At{Offset: 4, Validator: known})
	if err != nil || got != content[4:] || stream.Offset != 4 || stream.Validator != known {
		t.Errorf("resumed: %q, %+v, %v", got, stream, err)
	}
	// The same length and other bytes: it starts over.
	must(t, os.WriteFile(path, []byte("abcdefghij"), 0o600))
	must(t, os.Chtimes(path, time.Time{}, old))
	got, stream, err = read(t, o, source.At{Offset: 4, Validator: known})
	if err != nil || got != "abcdefghij" || stream.Offset != 0 {
		t.Errorf("changed: %q, %+v, %v", got, stream, err)
	}
}

func TestFilesThatAreNotRead(t *testing.T) {
	folder, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	in := func(name string) string { return filepath.Join(folder, name) }
	must(t, os.Symlink(secret, in("link")))
	must(t, os.Symlink("../"+filepath.Base(outside)+"/secret", in("relative")))
	must(t, os.Symlink(outside, in("folder")))
	must(t, syscall.Mkfifo(in("pipe"), 0o600))
	must(t, os.Mkdir(in("dir"), 0o700))
	d := download(source.Options{Files: []string{folder}})
	for url, code := range map[string]string{
		in("link"):                        fault.FileFolder,
		in("relative"):                    fault.FileFolder,
		in("folder") + "/secret":          fault.FileFolder,
		in("dir") + "/../../../etc/hosts": fault.FileFolder,
		secret:                            fault.FileFolder,
		in("pipe"):                        fault.NotAnImage,
		in("dir"):                         fault.NotAnImage,
		folder:                            fault.NotAnImage,
		in("absent"):                      fault.NoSource,
		in("link") + "/x":                 fault.FileFolder,
	} {
		t.Run(strings.TrimPrefix(url, folder), func(t *testing.T) {
			got, err := get(t, d, "file://"+url, nil)
			wantFault(t, err, code)
			if got != "" {
				t.Errorf("read %q", got)
			}
		})
	}
	_, err := get(t, download(source.Options{}), "file://"+secret, nil)
	wantFault(t, err, fault.FileFolder, secret)
	_, err = get(t, download(source.Options{Files: []string{in("gone")}}), "file://"+in("gone")+"/x", nil)
	wantFault(t, err, fault.NoSource)
}

// A file that shrinks while it is read is another one from then on.
func TestFileThatShrinks(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "a.raw")
	must(t, os.WriteFile(path, []byte(content), 0o600))
	o := origin(t, download(source.Options{Files: []string{folder}}), "file://"+path, nil)
	r, err := source.NewReader(t.Context(), o, source.At{}, source.ReaderOptions{Pause: instantly})
	must(t, err)
	defer func() { must(t, r.Close()) }()
	b := make([]byte, 5)
	_, err = io.ReadFull(r, b)
	must(t, err)
	must(t, os.Truncate(path, 4))
	if n, err := r.Read(b); n != 0 || !errors.Is(err, source.ErrRestart) || r.Total() != 4 {
		t.Errorf("read %d of %d: %v", n, r.Total(), err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != content[:4] {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFileIsInterrupted(t *testing.T) {
	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "a.raw"), []byte(content), 0o600))
	ctx, cancel := context.WithCancelCause(t.Context())
	stream, err := origin(t, download(source.Options{Files: []string{folder}}), "file://"+folder+"/a.raw", nil).Open(ctx, source.At{})
	must(t, err)
	cancel(fault.New(fault.Interrupted, "the agent stops"))
	_, err = stream.Read(make([]byte, 1))
	wantFault(t, err, fault.Interrupted, "the agent stops")
	must(t, stream.Close())
	// Whoever interrupts may close the file as well, at the same time.
	_, err = stream.Read(make([]byte, 1))
	wantFault(t, err, fault.Interrupted, "the agent stops")
}
