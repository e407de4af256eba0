package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// namespaces is the lab of tests/lab on this machine.
type namespaces struct{ script, state string }

func (n namespaces) lab(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.script, args...)
	cmd.Env = append(os.Environ(), "WHERRY_LAB_DIR="+n.state)
	return cmd
}

func (n namespaces) up(ctx context.Context) error {
	_, err := run(n.lab(ctx, "up"), nil)
	return err
}

func (n namespaces) down(ctx context.Context) error {
	_, err := run(n.lab(ctx, "down"), nil)
	return err
}

// wayIn ends the part of a command that leads into a host.
const wayIn = " --pdeathsig KILL -- "

// command enters the host as way_into of hosts.sh does. Not by the script: a test asks for something several times a
// second, and what the script takes to find its way is ten times what this takes.
func (n namespaces) command(ctx context.Context, host string, args ...string) *exec.Cmd {
	pid, err := os.ReadFile(filepath.Join(n.state, host, "init.pid"))
	if err != nil {
		return n.lab(ctx, append([]string{"exec", host}, args...)...) // which says what is to be done
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", strings.TrimSpace(string(pid)), "-a", "-r", "-w", "--",
		"/usr/bin/env", "-i", "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"/usr/bin/setpriv", "--pdeathsig", "KILL", "--"}, args...)...)
}

func (n namespaces) control(ctx context.Context, verb, host string, args ...string) error {
	_, err := run(n.lab(ctx, append([]string{verb, host}, args...)...), nil)
	return err
}

func (n namespaces) log(_ context.Context, host string) (string, error) {
	text, err := os.ReadFile(filepath.Join(n.state, host, "agent.log"))
	return string(text), err
}

func (n namespaces) folder(host, path string) (string, error) {
	switch path {
	case ImagesPath:
		return filepath.Join(n.state, host, "images"), nil
	case SecondPath:
		return filepath.Join(n.state, host, "images2"), nil
	case consolePath:
		return filepath.Join(n.state, host, "console"), nil
	case runPath:
		return filepath.Join(n.state, host, "run"), nil
	case SharedPath:
		return filepath.Join(n.state, "shared"), nil
	}
	return "", fmt.Errorf("folder %q of host %q is not seen from here", path, host)
}

func (n namespaces) namespace(host string) (string, error) {
	pid, err := os.ReadFile(filepath.Join(n.state, host, "init.pid"))
	if err != nil {
		return "", fmt.Errorf("host %q is not up: %w", host, err)
	}
	return filepath.Join("/proc", strings.TrimSpace(string(pid)), "ns/net"), nil
}
