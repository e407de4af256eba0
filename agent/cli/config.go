package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/agent/config"
)

// registerConfigFlags adds the flags that say where a configuration comes from.
func registerConfigFlags(cmd *cobra.Command, o *config.Options) {
	cmd.Flags().StringVarP(&o.File, "config", "c", "", "configuration file (env WHERRY_CONFIG; default "+config.DefaultFile+", which may be missing)")
	cmd.Flags().StringArrayVar(&o.Set, "set", nil, "one key of the configuration, as KEY=VALUE; repeatable, over file and environment")
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the agent's configuration", Args: noArgs, RunE: subcommandWanted}
	var options config.Options
	check := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and show what takes effect",
		Long: `Check the configuration that "wherry serve" would use: file, environment and
flags. Every fault is reported, with its key. Without a fault the values that
take effect are printed.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := config.Load(options)
			if err == nil {
				err = c.CheckFiles()
			}
			if err != nil {
				return fmt.Errorf("the configuration is not usable:\n%w", err)
			}
			return a.print(c.Tree(), func(w io.Writer) {
				for _, s := range c.Settings() {
					fmt.Fprintf(w, "%s\t%s\n", s.Key, s.Text)
				}
			})
		},
	}
	registerConfigFlags(check, &options)
	cmd.AddCommand(check)
	return cmd
}
