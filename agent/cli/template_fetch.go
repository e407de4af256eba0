package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// finishTemplate finishes an operation that fetches a template. Of a fetch that
// failed it tells whose fault that is and what happens next: the agent goes on
// by itself, and whoever waited should know.
func (a *app) finishTemplate(ctx context.Context, g agent, id, what string, op api.Operation, err error, noWait bool) error {
	err = a.finish(ctx, g, what, op, err, noWait)
	f, ok := errors.AsType[*failure](err)
	if !ok || !f.shown {
		return err
	}
	f.tried = true
	t, lookErr := g.Template(ctx, id)
	if lookErr != nil {
		return err // what failed is said; this would have been an addition
	}
	for _, c := range t.Copies {
		if c.State == api.CopyFailed {
			// They say more than the hint, which knows no copy.
			if p, ok := errors.AsType[*api.Problem](err); ok {
				p.Hint = ""
			}
			f.facts = append(f.facts, fact{"fault", faultText(c)}, fact{"retry", retryAdvice(t.ID, c, a.now())})
		}
	}
	return err
}

// settings are the keys of the configuration that a code may be about.
var settings = map[string]string{
	"address": "templates.allow_addresses", "file-folder": "templates.file_folders", "too-large": "templates.max_size",
	"idle": "templates.idle_timeout", "tls": "templates.ca",
}

// faultText says whose fault a failure is, with the code for programs.
func faultText(c api.TemplateCopy) string {
	whose := map[string]string{
		"source": "the place that the image comes from, or the way to it",
		"policy": "a rule of this host",
		"local":  "this host",
	}[c.Class]
	if c.Code == "" || whose == "" {
		return c.Code + whose
	}
	text := whose + " (" + c.Code + ")"
	if key := settings[c.Code]; key != "" {
		text += "; setting: " + key
	}
	return text
}

func retryAdvice(id string, c api.TemplateCopy, now time.Time) string {
	if c.RetryAt == nil {
		return fmt.Sprintf("not by itself, it would end the same; once the cause is gone: wherry template retry %s", id)
	}
	return fmt.Sprintf("by itself %s; \"wherry template info %s\" shows how it gets on", retryText(c, now), id)
}

// retryText says when a copy is tried again, and which try that is: "in 48s
// (try 4)". It is empty where there is nothing to try.
func retryText(c api.TemplateCopy, now time.Time) string {
	switch {
	case c.RetryAt == nil && c.State == api.CopyFailed:
		return "on request"
	case c.RetryAt == nil || c.State == api.CopyReady:
		return ""
	}
	when := "now"
	if wait := c.RetryAt.Sub(now).Round(time.Second); wait > 0 {
		when = "in " + durationText(wait)
	}
	return fmt.Sprintf("%s (try %d)", when, c.Attempts+1)
}
