package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
)

func (a *app) eventsCommand() *cobra.Command {
	var after uint64
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happens on the host, as it happens",
		Long: `Print what happens on the host, as it happens, until interrupted. With --output
json each event is one line.`,
		Args: noArgs,
		RunE: a.withAgent(func(ctx context.Context, g agent, _ []string) error {
			err := g.Events(ctx, after, a.printEvent)
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil // interrupted, as it must end
			}
			return failed("follow the events", err)
		}),
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "begin after the event of this id, and replay the later ones")
	return cmd
}

func (a *app) printEvent(e api.Event) error {
	if a.global.output == outputJSON {
		// One line for each: a reader takes them as they come.
		if err := json.NewEncoder(a.out).Encode(e); err != nil {
			return fmt.Errorf("write the event: %w", err)
		}
		return nil
	}
	if a.global.output == outputYAML {
		if _, err := fmt.Fprintln(a.out, "---"); err != nil {
			return err
		}
	}
	return a.print(e, func(w io.Writer) {
		subject := cmp.Or(api.Ref{Project: e.Project, Name: e.Instance}.String(), "-")
		switch {
		case e.Template != nil:
			subject = e.Template.ID
		case e.Operation != nil && e.Operation.Template != "":
			subject = e.Operation.Template
		}
		fmt.Fprintf(w, "%d  %s  %s  %s  %s\n", e.ID, timeText(e.At), e.Kind, subject, eventText(e))
	})
}

func eventText(e api.Event) string {
	if e.Template != nil {
		return templateEventText(*e.Template)
	}
	if e.Operation == nil {
		return e.Detail
	}
	text := fmt.Sprintf("%s %s", e.Operation.Kind, e.Operation.Status)
	if e.Operation.Phase != "" && !e.Operation.Ended() {
		text += ", " + e.Operation.Phase
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

func templateEventText(e api.TemplateEvent) string {
	if e.Volume != "" {
		return fmt.Sprintf("%s: %s", e.Volume, cmp.Or(e.State, "stands on it no more"))
	}
	text := cmp.Or(e.State, "gone")
	if e.Pool != "" {
		text += " in " + e.Pool
	}
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.RetryAt != nil {
		text += ", again at " + timeText(*e.RetryAt)
	}
	return text
}
