package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// The exit statuses of the wire contract.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnreachable = 4
)

// exitStatus is the one place where an error becomes an exit status.
func exitStatus(err error) int {
	if err == nil {
		return exitDone
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*client.Unreachable](err); ok {
		return exitUnreachable
	}
	if f, ok := errors.AsType[*failure](err); ok && f.tried {
		return exitFailed
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		switch p.Status {
		// The agent takes the request for malformed, and a flag made it so.
		case http.StatusBadRequest:
			return exitUsage
		// The agent understood and declined, before anything was touched.
		case http.StatusPreconditionFailed, http.StatusUnprocessableEntity:
			return exitRefused
		}
	}
	return exitFailed
}

// usageError says that the command line itself is wrong.
type usageError struct {
	command *cobra.Command // whose help applies; nil when none does
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usage marks an error as a mistake on the command line.
func usage(command *cobra.Command, err error) error {
	if _, ok := errors.AsType[*usageError](err); ok {
		return err
	}
	return &usageError{command, err}
}

func usagef(command *cobra.Command, format string, args ...any) error {
	return usage(command, fmt.Errorf(format, args...))
}

// noArgs refuses any argument; for a command with subcommands it suggests one.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasAvailableSubCommands() {
		return usagef(cmd, "unexpected argument %q", args[0])
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef(cmd, "unknown command %q: did you mean %q?", args[0], near[0])
	}
	return usagef(cmd, "unknown command %q", args[0])
}

// exactArgs wants the arguments that Use names in capitals.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef(cmd, "missing: %s", strings.Join(names[len(args):], " "))
		case len(args) > len(names):
			return usagef(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// subcommandWanted is the RunE of a command that only groups others.
func subcommandWanted(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return usagef(cmd, "say one of: %s", strings.Join(names, ", "))
}
