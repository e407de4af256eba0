package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// maxDomainXML bounds what is sent; the agent refuses a body over 1 MiB.
const maxDomainXML = 1 << 20

func (a *app) powerCommands() []*cobra.Command {
	return []*cobra.Command{a.createCommand(), a.startCommand(), a.stopCommand(), a.restartCommand(), a.deleteCommand()}
}

func (a *app) createCommand() *cobra.Command {
	r := api.CreateRequest{}
	var boot api.Boot
	var diskSize, memory sizeFlag
	var policy policyFlags
	var domainXML string
	var noWait bool
	cmd := &cobra.Command{
		Use:     "create NAME --template ID | --domain-xml FILE",
		Short:   "Create an instance from a template or a domain XML",
		Example: "  wherry create vm1 --template debian12 --disk-size 20GiB --memory 1GiB --start",
		Args:    exactArgs("NAME"),
	}
	cmd.RunE = a.withAgent(func(ctx context.Context, g agent, args []string) error {
		if (r.Template == "") == (domainXML == "") {
			return usagef(cmd, "say either --template or --domain-xml")
		}
		if domainXML != "" {
			text, err := a.readFile(domainXML, maxDomainXML)
			if err != nil {
				return err
			}
			r.DomainXML = text
		}
		if boot.Kernel != "" {
			r.Boot = &boot
		} else if boot != (api.Boot{}) {
			return usagef(cmd, "--initrd and --cmdline go with --kernel")
		}
		ref := a.global.ref(args[0])
		r.Name, r.DiskSize, r.Memory = ref.Name, int64(diskSize), int64(memory)
		if p, said := policy.over(api.StopPolicy{}); said {
			r.Stop = &p
		}
		op, err := g.Create(ctx, ref.Project, r, newKey())
		return a.finish(ctx, g, "create "+args[0], op, err, noWait)
	})
	f := cmd.Flags()
	f.StringVar(&r.Template, "template", "", "template of the first disk")
	f.StringVar(&r.Pool, "pool", "", "pool of the disk")
	f.Var(&diskSize, "disk-size", "virtual size of the disk (default: the template's)")
	f.StringVar(&r.Clone, "clone", "", "linked (the disk stands on the template) or full")
	f.IntVar(&r.VCPUs, "vcpus", 0, "number of virtual CPUs")
	f.Var(&memory, "memory", "memory of the guest")
	f.StringVar(&domainXML, "domain-xml", "", "domain XML, used as it is, disks and all; - reads standard input")
	f.StringVar(&boot.Kernel, "kernel", "", "boot this kernel of the host instead of the disk")
	f.StringVar(&boot.Initrd, "initrd", "", "with this initial RAM disk")
	f.StringVar(&boot.Cmdline, "cmdline", "", "and this command line")
	f.StringVar(&r.ConsoleLog, "console-log", "", "file of the host that gets a copy of the serial console")
	f.BoolVar(&r.Start, "start", false, "start it at once")
	policy.register(cmd, "stop-")
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) startCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:               "start NAME",
		Short:             "Start an instance",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.Start(ctx, a.global.ref(args[0]), newKey())
			return a.finish(ctx, g, "start "+args[0], op, err, noWait)
		}),
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) stopCommand() *cobra.Command {
	r := api.StopRequest{}
	var timeout time.Duration
	var noWait bool
	cmd := &cobra.Command{
		Use:   "stop NAME",
		Short: "Ask a guest to stop, and wait for it",
		Long: `Ask a guest to stop, and wait for it: by its agent, if that answers, and by the
power button, pressed again and again. A guest that does not stop within the
timeout runs on, and the command fails, unless --on-timeout force says otherwise.
A stop with --force ends one under way without. What ended the guest is printed:
agent, acpi, or, forced, quit, sigterm, sigkill.`,
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			r.Timeout = api.Duration(timeout)
			op, err := g.Stop(ctx, a.global.ref(args[0]), r, newKey())
			return a.finish(ctx, g, "stop "+args[0], op, err, noWait)
		}),
	}
	stopFlags(cmd, &r, &timeout)
	noWaitFlag(cmd, &noWait)
	return cmd
}

func stopFlags(cmd *cobra.Command, r *api.StopRequest, timeout *time.Duration) {
	f := cmd.Flags()
	f.DurationVar(timeout, "timeout", 0, "how long the guest is given (default: the agent's)")
	f.StringVar(&r.OnTimeout, "on-timeout", "", "then fail, or force: cut its power")
	f.BoolVar(&r.Force, "force", false, "cut its power without asking")
}

func (a *app) restartCommand() *cobra.Command {
	r := api.StopRequest{}
	var timeout time.Duration
	var noWait bool
	cmd := &cobra.Command{
		Use:   "restart NAME",
		Short: "Stop an instance and start it again",
		Long: `Stop an instance, as "wherry stop" does, and start it again. A stop that is asked
for meanwhile ends the restart, and the instance stays down.`,
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			r.Timeout = api.Duration(timeout)
			op, err := g.Restart(ctx, a.global.ref(args[0]), r, newKey())
			return a.finish(ctx, g, "restart "+args[0], op, err, noWait)
		}),
	}
	stopFlags(cmd, &r, &timeout)
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) deleteCommand() *cobra.Command {
	r := api.DeleteRequest{}
	var noWait bool
	cmd := &cobra.Command{
		Use:               "delete NAME",
		Aliases:           []string{"rm"},
		Short:             "Delete a stopped instance with its volumes",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.Delete(ctx, a.global.ref(args[0]), r, newKey())
			return a.finish(ctx, g, "delete "+args[0], op, err, noWait)
		}),
	}
	cmd.Flags().BoolVar(&r.KeepVolumes, "keep-volumes", false, "leave the volumes where they are")
	noWaitFlag(cmd, &noWait)
	return cmd
}

func noWaitFlag(cmd *cobra.Command, noWait *bool) {
	cmd.Flags().BoolVar(noWait, "no-wait", false, "do not wait: print the operation's id")
}

// readFile reads a named file, or standard input for "-", up to limit bytes.
func (a *app) readFile(name string, limit int64) (string, error) {
	source := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		source = f
	}
	text, err := io.ReadAll(io.LimitReader(source, limit+1))
	if err != nil {
		return "", fmt.Errorf("read %q: %w", name, err)
	}
	if int64(len(text)) > limit {
		return "", fmt.Errorf("%q is larger than %s", name, config.FormatSize(limit))
	}
	return string(text), nil
}

// sizeFlag is a size in bytes on the command line.
type sizeFlag int64

// String is empty for the zero value, which means "not given".
func (s *sizeFlag) String() string {
	if *s == 0 {
		return ""
	}
	return config.FormatSize(int64(*s))
}

// Type names the value in the usage text.
func (s *sizeFlag) Type() string { return "SIZE" }

// Set accepts 4096, 200MiB, 10GiB.
func (s *sizeFlag) Set(text string) error {
	n, err := config.ParseSize(text)
	*s = sizeFlag(n)
	return err
}
