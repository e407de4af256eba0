package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// originTime bounds each start and end of an Origin's server.
const originTime = 20 * time.Second

// Origin is a web server of a test's own: Debian's nginx, with nothing of the machine's configuration, on an address that
// the test chose. What it serves lies in one folder; the first part of a path is the knob that says how (origin_config.go).
type Origin struct {
	folder  string // everything below it is this server's
	address string // IP address, without port
	ports   originPorts
	enter   []string // puts a command into the network that serves
	pki     *originPKI

	mu     sync.Mutex
	server *exec.Cmd     // nil while stopped
	ended  chan struct{} // closed at the server's end
}

// Origin starts a web server in the host's network ("127.0.0.1", "10.77.0.1") and ends it with the test.
func (h *Host) Origin(t testing.TB, address string) *Origin {
	t.Helper()
	o, err := h.Serve(t.Context(), t.TempDir(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Stop() }) // a test that cares stops it itself
	return o
}

// Serve is Origin for a program that is no test: the server's files lie below a folder of the caller's, who stops it.
func (h *Host) Serve(ctx context.Context, folder, address string) (*Origin, error) {
	namespace, err := h.lab.namespace(h.Name)
	if err != nil {
		return nil, err
	}
	return startOrigin(ctx, folder, address, h.Listen, "nsenter", "--net="+namespace, "--")
}

// startOrigin starts a web server whose files lie below the folder. listen tells which ports are free.
func startOrigin(ctx context.Context, folder, address string, listen func(network, address string) (net.Listener, error), enter ...string) (*Origin, error) {
	o := &Origin{folder: folder, address: address, enter: enter}
	for _, name := range []string{"files", "temp"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o755); err != nil {
			return nil, err
		}
	}
	var held []net.Listener
	for _, port := range o.ports.all() {
		// All at once, so that no two get the same one; nginx takes them over right after.
		l, err := listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			return nil, err
		}
		*port = l.Addr().(*net.TCPAddr).Port
		held = append(held, l)
	}
	for _, l := range held {
		_ = l.Close() // nothing was ever accepted
	}
	var err error
	if o.pki, err = newOriginPKI(folder, address); err != nil {
		return nil, err
	}
	if err := o.configure(); err != nil {
		return nil, err
	}
	return o, o.Start(ctx)
}

// Start starts the server again, on the same ports.
func (o *Origin) Start(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.server != nil {
		return errors.New("the origin runs already")
	}
	_ = os.Remove(o.behind()) // a killed server leaves its socket, and could not listen on it again
	args := append(slices.Clone(o.enter), "nginx", "-p", o.folder, "-e", filepath.Join(o.folder, "error.log"), "-c", filepath.Join(o.folder, "nginx.conf"))
	// Not with the context of this call: the server lives until it is stopped.
	server := exec.Command(args[0], args[1:]...)
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		// What the kernel takes for its parent is a thread: this one stays as long as the server does.
		runtime.LockOSThread()
		err := server.Start()
		started <- err
		if err == nil {
			_ = server.Wait() // it is always killed
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("nginx (tests/install-deps): %w", err)
	}
	o.server, o.ended = server, ended
	ctx, cancel := context.WithTimeout(ctx, originTime)
	defer cancel()
	err := Until(ctx, "nginx to listen", func(context.Context) error {
		conn, err := net.Dial("unix", o.behind())
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	if err != nil {
		complaint, _ := os.ReadFile(filepath.Join(o.folder, "error.log")) // it may not have come so far
		return fmt.Errorf("%w: %s", err, complaint)
	}
	return nil
}

// Stop ends the server: whoever is being served sees its connection end, whoever comes next is refused.
func (o *Origin) Stop() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.server == nil {
		return nil
	}
	err := o.server.Process.Kill()
	select {
	case <-o.ended:
	case <-time.After(originTime):
		err = errors.Join(err, errors.New("nginx does not end"))
	}
	o.server = nil
	return err
}

// Freeze makes the server silent: connections stay, and are even made, but no byte comes. Thaw lets it go on.
func (o *Origin) Freeze() error { return o.signal(syscall.SIGSTOP) }

// Thaw ends what Freeze began.
func (o *Origin) Thaw() error { return o.signal(syscall.SIGCONT) }

func (o *Origin) signal(s syscall.Signal) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.server == nil {
		return errors.New("the origin does not run")
	}
	return o.server.Process.Signal(s)
}

// Put serves a file under a name; it takes the place of one that was there, with another inode and ETag.
func (o *Origin) Put(name string, data []byte) error {
	next := filepath.Join(o.folder, "temp", name)
	if err := os.WriteFile(next, data, 0o644); err != nil {
		return err
	}
	return os.Rename(next, o.File(name))
}

// File is where a served file lies: a test may put one there itself. It must not be changed in place.
func (o *Origin) File(name string) string { return filepath.Join(o.folder, "files", name) }

// URL is where a file is served, by a knob of origin_config.go.
func (o *Origin) URL(knob, name string) string { return o.url("http", o.ports.Plain, knob, name) }

// Elsewhere is URL at another port, which is another server to a client that keeps its secrets.
func (o *Origin) Elsewhere(knob, name string) string {
	return o.url("http", o.ports.Elsewhere, knob, name)
}

func (o *Origin) url(scheme string, port int, knob, name string) string {
	return scheme + "://" + net.JoinHostPort(o.address, strconv.Itoa(port)) + "/" + knob + "/" + name
}

// behind is the socket of the server that nginx itself asks.
func (o *Origin) behind() string { return filepath.Join(o.folder, "behind") }
