package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
)

// newServeCommand is the agent itself.
func newServeCommand() *cobra.Command {
	var options config.Options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the agent of this host",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(options)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c)
		},
	}
	registerConfigFlags(cmd, &options)
	return cmd
}

// serve runs until ctx ends.
func serve(context.Context, config.Config) error {
	return errors.New("the agent is not wired up yet")
}
