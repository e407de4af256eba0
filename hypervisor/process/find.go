package process

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	procFolder    = "/proc"
	libvirtFolder = "/run/libvirt/qemu"

	maxPIDFile = 64
	maxCommand = 2 << 20 // as much as the kernel lets all arguments be by default (execve(2))
)

// Finder finds the process of a domain. The zero value looks where the
// system's libvirt and kernel have it.
type Finder struct {
	Proc string // "" = /proc
	Run  string // libvirt's folder of run-time state; "" = /run/libvirt/qemu
}

// Find gives the domain's QEMU process, pinned and proven to be its own; nil
// without an error when there is none. The file that libvirt has of its number
// is believed first. Where that proves nothing all processes are looked
// through: libvirt removes the file when it thinks that it has ended the
// process, and is told otherwise here.
func (f Finder) Find(name, uuid string) (*Process, error) {
	if uuid == "" || name == "" {
		return nil, fmt.Errorf("process of %q, UUID %q: a name and a UUID are needed", name, uuid)
	}
	pid, err := f.noted(name)
	if err != nil {
		return nil, err
	}
	if pid > 0 {
		if p, err := f.prove(pid, uuid); p != nil || err != nil {
			return p, err
		}
	}
	return f.search(uuid)
}

// Runs tells whether the domain has a process.
func (f Finder) Runs(name, uuid string) (bool, error) {
	p, err := f.Find(name, uuid)
	if p == nil {
		return false, err
	}
	defer p.Close()
	return !p.Ended(), nil
}

// noted reads libvirt's file; 0 where there is none, or what it says makes no sense.
func (f Finder) noted(name string) (int, error) {
	if strings.ContainsAny(name, "/\x00") {
		return 0, nil // libvirt allows no such name
	}
	b, err := readSome(filepath.Join(cmp.Or(f.Run, libvirtFolder), name+".pid"), maxPIDFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("libvirt's note of the process of %q: %w", name, err)
	}
	pid, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 32)
	if err != nil || pid <= 1 {
		return 0, nil
	}
	return int(pid), nil
}

// prove pins the process, and gives it if it is the domain's; else nil.
func (f Finder) prove(pid int, uuid string) (*Process, error) {
	p, err := pin(pid)
	if errors.Is(err, ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	command, err := readSome(filepath.Join(cmp.Or(f.Proc, procFolder), strconv.Itoa(pid), "cmdline"), maxCommand)
	// Only now: had the pinned process ended before the command line was read,
	// it could be that of another one with the same number.
	if p.Ended() || errors.Is(err, fs.ErrNotExist) {
		p.Close()
		return nil, nil
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("command line of process %d: %w", pid, err)
	}
	if !startedWith(command, uuid) {
		p.Close()
		return nil, nil
	}
	return p, nil
}

// search looks through all processes. Most are ruled out without being pinned.
func (f Finder) search(uuid string) (*Process, error) {
	entries, err := os.ReadDir(cmp.Or(f.Proc, procFolder))
	if err != nil {
		return nil, fmt.Errorf("list of processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, err := readSome(filepath.Join(cmp.Or(f.Proc, procFolder), e.Name(), "cmdline"), maxCommand)
		if err != nil || !startedWith(command, uuid) {
			continue // ended meanwhile, or not the domain's
		}
		if p, err := f.prove(pid, uuid); p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil
}

// startedWith tells from a command line (proc_pid_cmdline(5)) whether libvirt
// started it as the domain's QEMU: "-uuid" with the UUID, and "-name" with
// "guest=". The UUID has to be the whole argument after its option: it may be
// part of a path in others.
func startedWith(command []byte, uuid string) bool {
	args := bytes.Split(bytes.TrimSuffix(command, []byte{0}), []byte{0})
	var named, ours bool
	for i := 1; i+1 < len(args); i++ {
		switch string(args[i]) {
		case "-name":
			named = named || bytes.HasPrefix(args[i+1], []byte("guest="))
		case "-uuid":
			ours = ours || strings.EqualFold(string(args[i+1]), uuid)
		}
	}
	return named && ours
}

// readSome reads a file whose size its information does not tell.
func readSome(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}
