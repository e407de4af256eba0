package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

func (a *app) templateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "template", Short: "Register and look at templates", Args: noArgs, RunE: subcommandWanted}
	cmd.AddCommand(a.templateAddCommand(), a.templateListCommand(), a.templateInfoCommand(), a.templateRemoveCommand(), a.templateRetryCommand())
	return cmd
}

func (a *app) templateAddCommand() *cobra.Command {
	r := api.TemplateRequest{}
	var headers []string
	var noWait bool
	cmd := &cobra.Command{
		Use:     "add ID URL --checksum sha256:HEX --format FORMAT",
		Short:   "Register a template and bring it onto this host",
		Example: "  wherry template add debian12 https://images.example.org/debian12.qcow2 --checksum sha256:... --format qcow2 --direct-download",
		Args:    exactArgs("ID", "URL"),
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
		r.ID, r.URL = args[0], args[1]
		op, err := g.RegisterTemplate(ctx, r, newKey())
		return a.finish(ctx, g, "register template "+r.ID, op, err, noWait)
	})
	f := cmd.Flags()
	f.StringVar(&r.Checksum, "checksum", "", "digest of the image: sha256:HEX")
	f.StringVar(&r.Format, "format", "", "qcow2 or raw")
	f.StringVar(&r.Pool, "pool", "", "pool of the copy (default: the agent's)")
	f.BoolVar(&r.DirectDownload, "direct-download", false, "every host fetches it by itself: what stands on it migrates as a full clone")
	f.StringVar(&r.SyncFrom, "sync-from", "", "peer to fetch it from, instead of the URL")
	f.StringArrayVar(&headers, "header", nil, "header of the download, as \"Name: value\"; repeatable")
	noWaitFlag(cmd, &noWait)
	return cmd
}

func headerMap(headers []string) (map[string]string, error) {
	var out map[string]string
	for _, h := range headers {
		name, value, found := strings.Cut(h, ":")
		if !found || strings.TrimSpace(name) == "" {
			// The value may be a secret: it is not repeated.
			return nil, fmt.Errorf("a header is written \"Name: value\"")
		}
		if out == nil {
			out = map[string]string{}
		}
		out[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return out, nil
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
			return a.print(api.TemplateList{Templates: templates}, func(w io.Writer) { templateTable(w, templates) })
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
			return a.print(t, func(w io.Writer) { templateInfo(w, t) })
		}),
	}
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
				if len(t.Refs) > 0 {
					fmt.Fprintf(w, "volumes that stand on its copies: %d; a copy stays while one does\n", len(t.Refs))
				}
			})
		}),
	}
}

func (a *app) templateRetryCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:               "retry ID",
		Short:             "Try again what failed",
		Args:              exactArgs("ID"),
		ValidArgsFunction: a.completeTemplates,
		RunE: a.withAgent(func(ctx context.Context, g agent, args []string) error {
			op, err := g.RetryTemplate(ctx, args[0], newKey())
			return a.finish(ctx, g, "retry template "+args[0], op, err, noWait)
		}),
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func templateTable(w io.Writer, templates []api.Template) {
	fmt.Fprintln(w, "ID\tFORMAT\tSIZE\tDIRECT\tPOOL\tSTATE\tREFS\tMESSAGE")
	for _, t := range templates {
		copies := t.Copies
		if len(copies) == 0 {
			copies = []api.TemplateCopy{{Pool: t.Pool, State: "-"}}
		}
		for _, c := range copies {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", t.ID, t.Format, config.FormatSize(t.VirtualSize),
				yesNo(t.DirectDownload), c.Pool, copyState(t, c), len(t.Refs), firstLine(c.Message))
		}
	}
}

func copyState(t api.Template, c api.TemplateCopy) string {
	switch {
	case t.RemovedAt != nil:
		return "removed"
	case c.State == api.CopyDownloading || c.State == api.CopySyncing:
		return fmt.Sprintf("%s %d%%", c.State, c.Progress)
	}
	return c.State
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func templateInfo(w io.Writer, t api.Template) {
	row(w, "id", t.ID)
	row(w, "url", t.URL)
	row(w, "sync from", t.SyncFrom)
	row(w, "checksum", t.Checksum)
	row(w, "digest", t.Digest)
	row(w, "format", t.Format)
	row(w, "direct download", yesNo(t.DirectDownload))
	row(w, "virtual size", config.FormatSize(t.VirtualSize))
	row(w, "size", config.FormatSize(t.Size))
	if t.RemovedAt != nil {
		row(w, "removed", timeText(*t.RemovedAt))
	}
	for _, c := range t.Copies {
		text := strings.TrimSpace(copyState(t, c) + " " + c.Path)
		if c.Attempts > 1 {
			text += fmt.Sprintf(", %d attempts", c.Attempts)
		}
		if c.RetryAt != nil {
			text += ", again at " + timeText(*c.RetryAt)
		}
		if c.Message != "" {
			text += "\n" + c.Message
		}
		row(w, "copy in "+c.Pool, text)
	}
	for _, r := range t.Refs {
		row(w, "used by", fmt.Sprintf("%s disk %s: %s", api.Ref{Project: r.Project, Name: r.Instance}, r.Disk, r.Volume))
	}
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
