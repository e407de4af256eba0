package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

func (a *app) instanceCommands() []*cobra.Command {
	list := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the instances of the host, registered or not",
		Args:    noArgs,
		RunE: a.withAgent(func(ctx context.Context, g agent, _ []string) error {
			instances, err := g.Instances(ctx, a.global.projects())
			if err != nil {
				return failed("list the instances", err)
			}
			return a.printTable(api.InstanceList{Instances: instances}, func(w io.Writer) { instanceTable(w, instances) })
		}),
	}
	info := &cobra.Command{
		Use:               "info NAME",
		Short:             "Show one instance",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			i, err := g.Instance(ctx, a.global.ref(args[0]))
			if err != nil {
				return failed("show "+args[0], err)
			}
			return a.print(i, func(w io.Writer) { instanceInfo(w, i) })
		}),
	}
	disks := &cobra.Command{
		Use:               "disks NAME",
		Short:             "Show what the disks of an instance stand on",
		Args:              exactArgs("NAME"),
		ValidArgsFunction: a.completeInstances,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			disks, err := g.Disks(ctx, a.global.ref(args[0]))
			if err != nil {
				return failed("show the disks of "+args[0], err)
			}
			return a.print(api.DiskList{Disks: disks}, func(w io.Writer) { diskTrees(w, disks) })
		}),
	}
	return []*cobra.Command{list, info, disks}
}

// withAgent runs a command with a connection to the agent.
func (a *app) withAgent(do func(ctx context.Context, g agent, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		g, err := a.dial(a.global)
		if err != nil {
			return usage(cmd, err)
		}
		return do(cmd.Context(), g, args)
	}
}

func instanceTable(w io.Writer, instances []api.Instance) {
	fmt.Fprintln(w, "NAME\tSTATE\tVCPUS\tMEMORY\tMANAGED\tUUID\tOPERATION\tHEALTH")
	for _, i := range instances {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", api.Ref{Project: i.Project, Name: i.Name},
			i.State, i.VCPUs, config.FormatSize(i.Memory), yesNo(i.Managed), i.UUID, cmp.Or(i.Operation, "-"), healthText(i))
	}
}

// healthText says why an instance is degraded, where it is.
func healthText(i api.Instance) string {
	if len(i.HealthReasons) == 0 {
		return i.Health
	}
	return i.Health + ": " + strings.Join(i.HealthReasons, "; ")
}

func instanceInfo(w io.Writer, i api.Instance) {
	state := i.State
	if i.Reason != "" {
		state += " (" + i.Reason + ")"
	}
	row(w, "name", i.Name)
	row(w, "project", i.Project)
	row(w, "uuid", i.UUID)
	row(w, "state", state)
	row(w, "health", healthText(i))
	row(w, "vcpus", strconv.Itoa(i.VCPUs))
	row(w, "memory", config.FormatSize(i.Memory))
	row(w, "managed", yesNo(i.Managed))
	row(w, "template", i.Template)
	if i.Snapshots > 0 {
		row(w, "snapshots", strconv.Itoa(i.Snapshots))
	}
	row(w, "operation", i.Operation)
	lockRows(w, i.Lock)
	for _, d := range i.Disks {
		row(w, "disk "+d.Target, diskLine(d))
	}
}

// lockRows tell who holds an instance, and who waits for it.
func lockRows(w io.Writer, l *api.Lock) {
	if l == nil {
		return
	}
	row(w, "held by", l.Kind+" since "+l.Since.Format(time.RFC3339))
	for _, x := range l.Waiters {
		row(w, "waiting", strings.TrimSpace(x.Kind+" "+x.Operation)+" since "+x.Since.Format(time.RFC3339))
	}
}

// row is one line of a description, further lines of a value below it; an
// empty value is left out.
func row(w io.Writer, label, value string) {
	if value != "" {
		fmt.Fprintf(w, "%s\t%s\n", label, strings.ReplaceAll(value, "\n", "\n\t"))
	}
}

func diskLine(d api.Disk) string {
	s := fmt.Sprintf("%s %s, %s", d.Format, config.FormatSize(d.Size), d.Path)
	if d.Path == "" {
		s = "no medium"
	}
	return s + diskNotes(d)
}

// diskNotes are the facts that decide how a disk migrates.
func diskNotes(d api.Disk) string {
	var s string
	if d.Device != "" && d.Device != "disk" {
		s += ", " + d.Device
	}
	if d.ReadOnly {
		s += ", read-only"
	}
	if d.Template != "" {
		s += ", template " + d.Template
	}
	if d.DirectDownload {
		s += ", direct-download"
	}
	return s
}

// diskTrees prints each disk with its chain as a tree, the active layer first.
func diskTrees(w io.Writer, disks []api.Disk) {
	for _, d := range disks {
		source := "read from the headers"
		if d.Live {
			source = "as QEMU has it open"
		}
		fmt.Fprintf(w, "%s  %s%s (%s)\n", d.Target, placeText(d.Kind, d.Pool), diskNotes(d), source)
		chainTree(w, "  ", d.Chain)
		for _, text := range d.Disagreements {
			fmt.Fprintf(w, "  ! %s\n", text)
		}
	}
}

func placeText(kind, pool string) string {
	if pool == "" {
		return kind
	}
	return kind + " in pool " + pool
}

// chainTree prints the layers of a chain, each below the one that stands on it.
func chainTree(w io.Writer, indent string, chain []api.Layer) {
	for i, l := range chain {
		branch := ""
		if i > 0 {
			branch = spaces(2*(i-1)) + "└ "
		}
		fmt.Fprintf(w, "%s%s%s  %s  %s, %s allocated", indent, branch, l.Path, l.Format,
			config.FormatSize(l.VirtualSize), config.FormatSize(l.Allocated))
		if l.Template != "" {
			fmt.Fprintf(w, "  template %s", l.Template)
		}
		fmt.Fprintln(w)
	}
}

func spaces(n int) string { return fmt.Sprintf("%*s", n, "") }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
