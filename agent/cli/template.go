package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
)

// Kinds of the operations on templates.
const (
	templateKind = "template"
	scrubKind    = "template-scrub"
)

func (a *app) templateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "template", Short: "Register and look at templates", Args: noArgs, RunE: subcommandWanted}
	cmd.AddCommand(a.templateAddCommand(), a.templateListCommand(), a.templateInfoCommand(), a.templateRemoveCommand(), a.templateRetryCommand(), a.templateScrubCommand())
	return cmd
}

func (a *app) templateAddCommand() *cobra.Command {
	r := api.TemplateRequest{}
	var headers []string
	var noWait bool
	cmd := &cobra.Command{
		Use:   "add ID URL --checksum ALGORITHM:HEX --format FORMAT",
		Short: "Register a template and bring it onto this host",
		Long: `Register a template and bring it onto this host.

The image comes from an http or https URL, from a file:///PATH in one of
templates.file_folders, or from a mirror that a Metalink (.meta4) names. One
packed as .gz, .xz or .zst is unpacked as it arrives. What fails is tried again
by itself; "wherry template list" says when.`,
		Example: `  wherry template add debian12 https://images.example.org/debian12.qcow2 --checksum sha256:... --format qcow2 --direct-download
  wherry template add rocky9 --sync-from https://host-b:8470 --checksum sha256:... --format qcow2`,
		Args: func(cmd *cobra.Command, args []string) error {
			if r.SyncFrom != "" && len(args) == 1 {
				return nil
			}
			return exactArgs("ID", "URL")(cmd, args)
		},
	}
	cmd.RunE = a.withAgent(func(ctx context.Context, g agent, args []string) error {
		// An image is never taken on trust, nor its format guessed.
		if r.Checksum == "" || r.Format == "" {
			return usagef(cmd, "--checksum and --format are needed")
		}
		var err error
		if r.Headers, err = headerMap(headers); err != nil {
			return usage(cmd, err)
		}
		r.ID = args[0]
		if len(args) > 1 {
			r.URL = args[1]
		}
		op, err := g.RegisterTemplate(ctx, r, newKey())
		return a.finishTemplate(ctx, g, r.ID, "register template "+r.ID, op, err, noWait)
	})
	f := cmd.Flags()
	f.StringVar(&r.Checksum, "checksum", "", "digest of the image as it is served, packed or not: sha256:HEX or sha512:HEX\n(md5: and sha1: too)")
	f.StringVar(&r.Format, "format", "", "qcow2 or raw")
	f.StringVar(&r.Pool, "pool", "", "pool of the copy (default: the agent's)")
	f.BoolVar(&r.DirectDownload, "direct-download", false, "every host fetches it by itself: what stands on it migrates as a full clone")
	f.StringVar(&r.SyncFrom, "sync-from", "", "peer to ask first, https://HOST:8470; the URL may then be left out")
	f.StringArrayVar(&headers, "header", nil, "header of the download, as \"Name: value\", or @FILE with one in each line; repeatable")
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) templateListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the templates and their copies on this host",
		Args:    noArgs,
		RunE: a.withAgent(func(ctx context.Context, g agent, _ []string) error {
			templates, err := g.Templates(ctx)
			if err != nil {
				return failed("list the templates", err)
			}
			unowned, err := g.UnownedFiles(ctx)
			if err != nil {
				return failed("list the files that nobody owns", err)
			}
			err = a.printTable(api.TemplateList{Templates: templates, Unowned: unowned}, func(w io.Writer) { templateTable(w, templates, a.now()) })
			if err != nil || len(unowned) == 0 || a.global.output != outputTable {
				return err
			}
			return a.print(nil, func(w io.Writer) { unownedTable(w, unowned) })
		}),
	}
}

func (a *app) templateInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "info ID",
		Short:             "Show a template, its copies and what stands on it",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeTemplates,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			t, err := g.Template(ctx, args[0])
			if err != nil {
				return failed("show template "+args[0], err)
			}
			return a.print(t, func(w io.Writer) { templateInfo(w, t, healthOf(ctx, g, t.Refs), a.now()) })
		}),
	}
}

// healthOf looks up how the instances do that stand on a template. It is an
// addition: where libvirt is away, the template is shown without it.
func healthOf(ctx context.Context, g instanceCalls, refs []api.TemplateRef) map[api.Ref]api.Instance {
	out := map[api.Ref]api.Instance{}
	for _, r := range refs {
		ref := api.Ref{Project: r.Project, Name: r.Instance}
		if _, asked := out[ref]; asked || r.Instance == "" {
			continue
		}
		// An instance that is gone is one of the things a ref may say.
		out[ref], _ = g.Instance(ctx, ref)
	}
	return out
}

func (a *app) templateRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm ID",
		Aliases:           []string{"remove", "delete"},
		Short:             "Remove a template; copies in use stay until they are not",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeTemplates,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			t, err := g.RemoveTemplate(ctx, args[0])
			if err != nil {
				return failed("remove template "+args[0], err)
			}
			return a.print(t, func(w io.Writer) {
				fmt.Fprintf(w, "template %s is removed\n", args[0])
				if users := usersOf(t.Refs, ""); len(users) > 0 {
					fmt.Fprintf(w, "its copy stays while something stands on it: %s\n", strings.Join(users, ", "))
				}
			})
		}),
	}
}

// usersOf names the instances that stand on the copy in a pool, or on any.
func usersOf(refs []api.TemplateRef, pool string) (out []string) {
	for _, r := range refs {
		name := api.Ref{Project: r.Project, Name: r.Instance}.String()
		if (pool == "" || r.Pool == pool) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (a *app) templateRetryCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:               "retry ID",
		Short:             "Try again now what failed, and what is tried no more",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeTemplates,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.RetryTemplate(ctx, args[0], newKey())
			return a.finishTemplate(ctx, g, args[0], "retry template "+args[0], op, err, noWait)
		}),
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) templateScrubCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "scrub ID",
		Short: "Read the copies whole and compare them with what they were",
		Long: `Read the copies whole and compare them with what they were.

The agent looks at every copy by itself, and reads it where its time or size has
changed. A scrub finds what a disk has forgotten without saying so. A copy that
differs is brought again.`,
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeTemplates,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.ScrubTemplate(ctx, args[0], newKey())
			return a.finishTemplate(ctx, g, args[0], "scrub template "+args[0], op, err, noWait)
		}),
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}
