package harness

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// vagrant reaches the hosts of the Vagrantfile, which are provisioned as real ones are. Their folders and network
// namespaces are not seen from here; what needs them says errors.ErrUnsupported.
type vagrant struct{ folderOfVagrantfile string }

func (v vagrant) vagrant(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "vagrant", args...)
	cmd.Dir = v.folderOfVagrantfile
	return cmd
}

func (v vagrant) up(ctx context.Context) error {
	_, err := run(v.vagrant(ctx, "up"), nil)
	return err
}

func (v vagrant) command(ctx context.Context, host string, args ...string) *exec.Cmd {
	return v.vagrant(ctx, "ssh", host, "--no-tty", "--command", "sudo "+quote(args))
}

func quote(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// control says with systemd and tc what the lab's own verbs do. The network between the hosts is eth1.
func (v vagrant) control(ctx context.Context, verb, host string, args ...string) error {
	script, err := v.script(verb, args)
	if err != nil {
		return err
	}
	_, err = run(v.command(ctx, host, "sh", "-c", script), nil)
	return err
}

func (v vagrant) script(verb string, args []string) (string, error) {
	unit := map[string]string{"agent": "wherry", "libvirtd": "libvirtd"}[verb]
	switch word := strings.Join(args, " "); verb + " " + word {
	case "agent start", "agent stop", "agent restart", "libvirtd start", "libvirtd stop", "libvirtd restart":
		return "systemctl " + word + " " + unit, nil
	case "agent kill", "libvirtd kill":
		// Stopped at once as well, or systemd would start it again.
		return fmt.Sprintf("systemctl kill -s KILL %s; systemctl stop %s", unit, unit), nil
	case "tgtd start":
		return "systemctl start tgt", nil
	case "tgtd stop":
		return "systemctl kill -s KILL tgt; systemctl stop tgt", nil
	case "link up", "rate off":
		return "tc qdisc delete dev eth1 root; true", nil
	case "link down":
		return "tc qdisc replace dev eth1 root blackhole", nil
	default:
		if verb == "rate" {
			return "tc qdisc replace dev eth1 root tbf rate " + word + " burst 1mb latency 50ms", nil
		}
		return "", fmt.Errorf("%s %s: %w", verb, word, errors.ErrUnsupported)
	}
}

func (v vagrant) down(context.Context) error {
	return fmt.Errorf("taking the hosts of Vagrant down: %w", errors.ErrUnsupported)
}

func (v vagrant) log(ctx context.Context, host string) (string, error) {
	return run(v.command(ctx, host, "journalctl", "--unit", "wherry", "--boot", "--output", "cat", "--no-pager"), nil)
}

func (v vagrant) folder(host, path string) (string, error) {
	return "", fmt.Errorf("folder %q of host %q: %w", path, host, errors.ErrUnsupported)
}

func (v vagrant) namespace(host string) (string, error) {
	return "", fmt.Errorf("network namespace of host %q: %w", host, errors.ErrUnsupported)
}
