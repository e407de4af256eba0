package cli

import (
	"context"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/daemon"
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
func serve(ctx context.Context, c config.Config) error {
	return daemon.Run(ctx, c, Version(), logger(c.Log))
}

// logger writes to standard error, where systemd takes it up.
func logger(c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // the configuration was validated
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
