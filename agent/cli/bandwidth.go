package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

func (a *app) bandwidthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bandwidth [SIZE]",
		Short: "Show or change what all migrations from the host may send together",
		Long: `Show what all migrations from the host may send together, in bytes per second,
and which share each has; or change it, for those that run too. 0 is no limit.
It lasts until the agent is restarted: what is to stay belongs into its
configuration (migration.host_bandwidth).`,
		Example: "  wherry bandwidth 200MiB\n  wherry bandwidth 0",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change := len(args) == 1
			var size sizeFlag
			if change {
				if err := size.Set(args[0]); err != nil {
					return usagef(cmd, "bandwidth: %w", err)
				}
			}
			return a.withAgent(func(ctx context.Context, g agent, _ []string) error {
				show := g.Bandwidth
				if change {
					show = func(ctx context.Context) (api.Bandwidth, error) { return g.SetBandwidth(ctx, int64(size)) }
				}
				b, err := show(ctx)
				if err != nil {
					return failed("bandwidth", err)
				}
				return a.print(b, func(w io.Writer) { bandwidthText(w, b) })
			})(cmd, args)
		},
	}
}

func bandwidthText(w io.Writer, b api.Bandwidth) {
	fmt.Fprintf(w, "all migrations from this host: %s\n", limitText(b.Bandwidth))
	for _, s := range b.Shares {
		fmt.Fprintf(w, "  %s  %s\n", s.Operation, limitText(s.Bandwidth))
	}
}

func limitText(bytes int64) string {
	if bytes <= 0 {
		return "no limit"
	}
	return config.FormatSize(bytes) + "/s"
}
