package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume"
)

// chainAnswer is the result of "chain" for a machine.
type chainAnswer struct {
	Chain  []api.Layer `json:"chain"`
	Issues []string    `json:"issues"`
}

func (a *app) chainCommand() *cobra.Command {
	var format string
	var roots []string
	cmd := &cobra.Command{
		Use:   "chain FILE",
		Short: "Show what an image stands on, with no agent",
		Long: `Show what an image stands on, with no agent. A layer outside the folder of FILE
is named but not opened, unless its folder is given by --root. A raw image is
read as such only when --format raw says so: nothing else tells it from a qcow2
image that its guest has forged.`,
		Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.showChain(args[0], volume.Format(format), roots)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "format of FILE: qcow2 or raw (default: qcow2, if it is one)")
	cmd.Flags().StringArrayVar(&roots, "root", nil, "folder in which layers may lie; repeatable (default: the folder of FILE)")
	return cmd
}

func (a *app) showChain(file string, format volume.Format, roots []string) error {
	path, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("find %q: %w", file, err)
	}
	if format == "" {
		if format, err = volume.DetectForPerson(path); err != nil {
			return err
		}
	}
	if len(roots) == 0 {
		roots = []string{filepath.Dir(path)}
	}
	for i := range roots {
		if roots[i], err = filepath.Abs(roots[i]); err != nil {
			return fmt.Errorf("find %q: %w", roots[i], err)
		}
	}
	chain, walkErr := volume.Walk(path, format, roots)
	answer := chainAnswer{Chain: []api.Layer{}, Issues: []string{}}
	for _, l := range chain {
		answer.Chain = append(answer.Chain, api.Layer{Path: l.Path, Format: string(l.Format), VirtualSize: l.VirtualSize, Allocated: l.Allocated})
	}
	if walkErr == nil {
		for _, issue := range chain.Issues() {
			answer.Issues = append(answer.Issues, issue.String())
		}
	}
	// What could be read is shown even if the rest could not.
	err = a.print(answer, func(w io.Writer) {
		chainTree(w, "", answer.Chain)
		for _, issue := range answer.Issues {
			fmt.Fprintf(w, "! %s\n", issue)
		}
	})
	return errors.Join(chainError(walkErr), err)
}

// chainError adds what the person at the keyboard can do about it.
func chainError(err error) error {
	if errors.Is(err, volume.ErrOutsideRoots) {
		return fmt.Errorf("%w\n  hint:   if the folder of that layer is to be trusted, give it with --root", err)
	}
	return err
}
