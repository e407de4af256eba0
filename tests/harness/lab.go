// Package harness drives the lab's two hosts from Go tests: commands, links, agents, guests. It works on the lab of
// namespaces (tests/lab) and, with WHERRY_LAB=vagrant, on the hosts of the Vagrantfile.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Time that bringing the lab up may take, the first building of its roots included.
const upTimeout = 10 * time.Minute

// transport is how the harness reaches the hosts. There are two: the lab of namespaces, and Vagrant.
type transport interface {
	// up brings both hosts up where they are not.
	up(ctx context.Context) error
	// down takes both hosts away. It fails with errors.ErrUnsupported where they are kept.
	down(ctx context.Context) error
	// command runs args in the host; the caller wires it up.
	command(ctx context.Context, host string, args ...string) *exec.Cmd
	// control is one of the lab's own verbs on a host: agent, libvirtd, link, rate.
	control(ctx context.Context, verb, host string, args ...string) error
	// folder is where a folder of the host (see the constants below) is seen from here. It fails with
	// errors.ErrUnsupported where it is not.
	folder(host, path string) (string, error)
	// log is everything that the host's agent has logged since the host is up.
	log(ctx context.Context, host string) (string, error)
	// namespace is the path of the host's network namespace. It fails with errors.ErrUnsupported.
	namespace(host string) (string, error)
}

// Folders as the hosts see them.
const (
	ImagesPath  = "/var/lib/libvirt/images" // pool default
	SecondPath  = "/srv/second"             // pool second
	SharedPath  = "/srv/shared"             // pool shared, the same folder on both hosts
	GuestPath   = "/srv/guest"              // the guest's kernel and initramfs
	consolePath = "/var/log/wherry-guest"
	runPath     = "/run/wherry"
)

// Lab is a running lab.
type Lab struct {
	transport
	A, B *Host
}

// Open returns the lab and brings it up where it is not. It fails the test where that cannot be done: a machine that
// runs these tests is expected to manage (tests/install-deps).
func Open(t testing.TB) *Lab {
	t.Helper()
	lab, err := Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

// Connect is Open for a program that is no test.
func Connect(ctx context.Context) (*Lab, error) { return connect(ctx, newTransport()) }

// ConnectIn is Connect for the lab whose state is in that folder, whatever WHERRY_LAB_DIR says. Several work side by side.
func ConnectIn(ctx context.Context, state string) (*Lab, error) {
	return connect(ctx, newNamespaces(state))
}

func connect(ctx context.Context, over transport) (*Lab, error) {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	lab := &Lab{transport: over}
	if err := lab.up(ctx); err != nil {
		return nil, fmt.Errorf("the lab does not come up: %w", err)
	}
	lab.A, lab.B = &Host{lab: lab, Name: "a"}, &Host{lab: lab, Name: "b"}
	return lab, nil
}

// Down takes the lab away, whoever has brought it up; one that is not up is no error. Nothing of a Lab works after.
func Down(ctx context.Context) error { return newTransport().down(ctx) }

// DownIn is Down for the lab whose state is in that folder.
func DownIn(ctx context.Context, state string) error { return newNamespaces(state).down(ctx) }

func newNamespaces(state string) namespaces {
	return namespaces{script: filepath.Join(repository(), "tests/lab/lab"), state: state}
}

func newTransport() transport {
	if os.Getenv("WHERRY_LAB") == "vagrant" {
		return vagrant{repository()}
	}
	state := os.Getenv("WHERRY_LAB_DIR")
	if state == "" {
		state = filepath.Join(repository(), ".lab")
	}
	return newNamespaces(state)
}

// repository finds the root of this working copy from where this file was compiled.
func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Host returns host "a" or "b".
func (l *Lab) Host(name string) *Host {
	if name == "a" {
		return l.A
	}
	return l.B
}

// Hosts returns both hosts.
func (l *Lab) Hosts() []*Host { return []*Host{l.A, l.B} }

// run runs a command with the input and returns what it printed. The error carries what it complained about.
func run(cmd *exec.Cmd, input io.Reader) (string, error) {
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &out, &complaint
	// A daemon that the command started may hold our pipes.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) || complaint.Len() > 0 {
			what := strings.Join(cmd.Args[1:], " ")
			if _, inside, ok := strings.Cut(what, wayIn); ok {
				what = inside
			}
			err = fmt.Errorf("%s: %w: %s", what, err, strings.TrimSpace(complaint.String()))
		}
		return out.String(), err
	}
	return out.String(), nil
}
