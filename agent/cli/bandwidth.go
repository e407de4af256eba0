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
	var reset bool
	cmd := &cobra.Command{
		Use:   "bandwidth [SIZE]",
		Short: "Show or change what all migrations from the host may send together",
		Long: `Show what all migrations from the host may send together, in bytes per second,
and which share each has; or change it, for those that run too. 0 is no limit.
Templates and layers that other hosts fetch from here have a share each as well.
What is set outlives restarts of the agent, until --reset goes back to its
configuration (migration.host_bandwidth).`,
		Example: "  wherry bandwidth 200MiB\n  wherry bandwidth 0\n  wherry bandwidth --reset",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change := len(args) == 1
			var size sizeFlag
			switch {
			case change && reset:
				return usagef(cmd, "bandwidth: a size and --reset exclude each other")
			case change:
				if err := size.Set(args[0]); err != nil {
					return usagef(cmd, "bandwidth: %w", err)
				}
			}
			return a.withAgent(func(ctx context.Context, g agent, _ []string) error {
				show := g.Bandwidth
				switch {
				case reset:
					show = g.ResetBandwidth
				case change:
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
	cmd.Flags().BoolVar(&reset, "reset", false, "go back to what is configured")
	return cmd
}

func bandwidthText(w io.Writer, b api.Bandwidth) {
	fmt.Fprintf(w, "all migrations from this host: %s, %s\n", limitText(b.Bandwidth), originText(b))
	for _, s := range b.Shares {
		what := s.Operation
		if s.Content != "" {
			what = "content " + s.Content
		}
		fmt.Fprintf(w, "  %s  %s\n", what, limitText(s.Bandwidth))
	}
}

// originText says where the limit comes from.
func originText(b api.Bandwidth) string {
	if b.Source != api.BandwidthSet || b.SetAt == nil {
		return "as configured"
	}
	return fmt.Sprintf("set by %s at %s; configured: %s", b.SetBy, timeText(*b.SetAt), limitText(b.Configured))
}

func limitText(bytes int64) string {
	if bytes <= 0 {
		return "no limit"
	}
	return config.FormatSize(bytes) + "/s"
}
