package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// completionTimeout bounds what a person waits for after pressing Tab.
const completionTimeout = time.Second

// complete offers names for the first argument only, and nothing on any error.
func (a *app) complete(cmd *cobra.Command, args []string, names func(context.Context, agent) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	g, err := a.dial(a.global)
	if err != nil {
		return nil, directive
	}
	out, err := names(ctx, g)
	if err != nil {
		return nil, directive
	}
	return out, directive
}

func (a *app) completeInstances(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, g agent) ([]string, error) {
		instances, err := g.Instances(ctx, a.global.projects())
		var out []string
		for _, i := range instances {
			name := api.Ref{Project: i.Project, Name: i.Name}.String()
			if a.global.project != "" {
				name = i.Name
			}
			out = append(out, cobra.CompletionWithDesc(name, i.State))
		}
		return out, err
	})
}

func (a *app) completeTemplates(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, g agent) ([]string, error) {
		templates, err := g.Templates(ctx)
		var out []string
		for _, t := range templates {
			out = append(out, t.ID)
		}
		return out, err
	})
}

func (a *app) completeOperations(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, g agent) ([]string, error) {
		ops, err := g.Operations(ctx, client.OperationFilter{})
		var out []string
		for _, op := range ops {
			out = append(out, cobra.CompletionWithDesc(op.ID, op.Kind+" "+op.Instance+" "+op.Status))
		}
		return out, err
	})
}
