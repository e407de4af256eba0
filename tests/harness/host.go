package harness

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Host is one of the lab's two hosts.
type Host struct {
	lab  *Lab
	Name string // "a" or "b"
}

// Hostname is the name by which the other host knows this one.
func (h *Host) Hostname() string { return "wherry-" + h.Name }

// URL is where the host's agent answers its peers.
func (h *Host) URL() string { return "https://" + h.Hostname() + ":8470" }

// Peer returns the other host.
func (h *Host) Peer() *Host {
	if h == h.lab.A {
		return h.lab.B
	}
	return h.lab.A
}

// Command prepares a command of the host for the caller to run. Killing it kills it in the host too.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	return h.lab.command(ctx, h.Name, args...)
}

// Exec runs a command in the host and returns its standard output. The error carries its standard error.
func (h *Host) Exec(ctx context.Context, args ...string) (string, error) {
	return run(h.lab.command(ctx, h.Name, args...), nil)
}

// Input runs a command in the host with input on its standard input.
func (h *Host) Input(ctx context.Context, input string, args ...string) (string, error) {
	return run(h.lab.command(ctx, h.Name, args...), strings.NewReader(input))
}

// Virsh runs virsh on the host's own libvirt and returns what it printed, trimmed.
func (h *Host) Virsh(ctx context.Context, args ...string) (string, error) {
	out, err := h.Exec(ctx, append([]string{"virsh", "-q"}, args...)...)
	return strings.TrimSpace(out), err
}

// Images is the folder of the host's pool default, seen from here. Empty where it is not seen (Vagrant).
func (h *Host) Images() string { return h.seen(ImagesPath) }

// Second is the folder of the host's pool second, seen from here.
func (h *Host) Second() string { return h.seen(SecondPath) }

// Shared is the folder that both hosts have in common, seen from here.
func (h *Host) Shared() string { return h.seen(SharedPath) }

// Socket is the agent's socket, seen from here.
func (h *Host) Socket() string {
	if folder := h.seen(runPath); folder != "" {
		return filepath.Join(folder, "agent.sock")
	}
	return ""
}

func (h *Host) seen(path string) string {
	folder, err := h.lab.folder(h.Name, path)
	if err != nil {
		return ""
	}
	return folder
}

// Agent starts, stops, kills (SIGKILL) or restarts the host's agent; it returns when that is so. Further words are
// NAME=VALUE pairs of its environment.
func (h *Host) Agent(ctx context.Context, command string, environment ...string) error {
	return h.lab.control(ctx, "agent", h.Name, append([]string{command}, environment...)...)
}

// AgentLog is what the host's agent has logged since the host is up, over all its starts.
func (h *Host) AgentLog(ctx context.Context) (string, error) { return h.lab.log(ctx, h.Name) }

// Libvirtd starts, stops, kills or restarts the host's libvirtd. Guests live on.
func (h *Host) Libvirtd(ctx context.Context, command string) error {
	return h.lab.control(ctx, "libvirtd", h.Name, command)
}

// Link joins the host to the network, or cuts it off: packets vanish, no connection is reset.
func (h *Host) Link(ctx context.Context, up bool) error {
	return h.lab.control(ctx, "link", h.Name, map[bool]string{true: "up", false: "down"}[up])
}

// Rate limits what the host sends, for instance to "200mbit"; "off" lifts the limit.
func (h *Host) Rate(ctx context.Context, rate string) error {
	return h.lab.control(ctx, "rate", h.Name, rate)
}

// Domains lists the names of the host's domains, running or not.
func (h *Host) Domains(ctx context.Context) ([]string, error) {
	out, err := h.Virsh(ctx, "list", "--all", "--name")
	return strings.Fields(out), err
}

// Define defines a domain from XML; Start starts it.
func (h *Host) Define(ctx context.Context, xml string) error {
	_, err := h.Input(ctx, xml, "virsh", "-q", "define", "/dev/stdin")
	return err
}

// Start starts a domain that is defined.
func (h *Host) Start(ctx context.Context, name string) error {
	_, err := h.Virsh(ctx, "start", name)
	return err
}

// State is the state of a domain in virsh's words ("running", "paused", "shut off"), or empty where there is none.
func (h *Host) State(ctx context.Context, name string) (string, error) {
	domains, err := h.Domains(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(domains, name) {
		return "", nil
	}
	state, err := h.Virsh(ctx, "domstate", name)
	if err == nil {
		return state, nil
	}
	// It may have left between the two looks.
	if domains, again := h.Domains(ctx); again == nil && !slices.Contains(domains, name) {
		return "", nil
	}
	return "", err
}

// Remove destroys and undefines a domain. One that is not there is no error.
func (h *Host) Remove(ctx context.Context, name string) error {
	state, err := h.State(ctx, name)
	if err != nil || state == "" {
		return err
	}
	if state != "shut off" {
		if _, err := h.Virsh(ctx, "destroy", name); err != nil {
			if now, again := h.State(ctx, name); again != nil || (now != "shut off" && now != "") {
				return err
			}
		}
	}
	if state, err = h.State(ctx, name); err != nil || state == "" {
		return err
	}
	_, err = h.Virsh(ctx, "undefine", "--snapshots-metadata", "--managed-save", name)
	return err
}

// resetScript empties a host in one command: each costs as much as what it does. A domain that has stopped by itself needs
// no destroying. The other host may be emptying the shared folder too.
const resetScript = `
virsh -q list --all --name | while IFS= read -r name; do
	[ -n "$name" ] || continue
	virsh -q destroy "$name"
	virsh -q undefine --snapshots-metadata --managed-save "$name"
done 2>/run/reset.log
left=$(virsh -q list --all --name) && [ -z "$left" ] || { echo "domains stay: $left" >&2; cat /run/reset.log >&2; exit 1; }
find "$@" -ignore_readdir_race -mindepth 1 -delete && virsh -q 'pool-refresh default; pool-refresh second; pool-refresh shared' >&2`

// Reset removes every domain and every file of the host's pools, so that a test starts from nothing.
func (h *Host) Reset(ctx context.Context) error {
	if _, err := h.Exec(ctx, "sh", "-c", resetScript, "sh", ImagesPath, SecondPath, SharedPath); err != nil {
		return fmt.Errorf("emptying host %s: %w", h.Name, err)
	}
	return nil
}
