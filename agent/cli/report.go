package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// report prints an error for a person, and in a machine's format the problem
// document on standard output, where a result would have been.
func (a *app) report(err error) {
	if err == nil {
		return
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(a.err, "wherry: %v\n", u)
		if u.command != nil {
			fmt.Fprintf(a.err, "Run \"%s --help\" for the usage.\n", u.command.CommandPath())
		}
		return
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		f, _ := errors.AsType[*failure](err)
		if a.global.output != outputTable && (f == nil || !f.shown) {
			// What cannot be written here was not written before either.
			_ = a.print(p, nil)
		}
		fmt.Fprint(a.err, problemText(err, p))
		return
	}
	fmt.Fprintf(a.err, "wherry: %v\n", err)
	if l, ok := errors.AsType[*leftError](err); ok {
		fmt.Fprintf(a.err, "  wait:   wherry operation wait %[1]s\n  cancel: wherry operation cancel %[1]s\n", l.id)
	}
	if u, ok := errors.AsType[*client.Unreachable](err); ok {
		fmt.Fprintf(a.err, "  hint:   %s\n", reachHint(u.Stage))
	}
}

// reachHint says what a person can do about an agent that does not answer.
func reachHint(stage string) string {
	switch stage {
	case client.StageTLS:
		return "are --tls-ca, --tls-cert and --tls-key those of this agent?"
	case client.StageExchange:
		return "the request may have been carried out: see \"wherry operation list\" when the agent is back"
	}
	return "does the agent run there? Another one is named with --agent or WHERRY_AGENT"
}

// failure adds what was being done to the error that ended it.
type failure struct {
	what  string // "migrate vm1"
	err   error
	shown bool // a machine has its document already
	// tried: work was begun, so that whatever came of it is no refusal.
	tried bool
	// facts are lines that go below the problem.
	facts []fact
}

// fact is a line of an error's description: "retry:  by itself in 48s".
type fact struct{ label, text string }

func (f *failure) Error() string { return f.what + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failed says what was being done when err happened; nil stays nil.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &failure{what: what, err: err}
}

// problemText lays a problem out: what failed, where, why, and what to do.
func problemText(err error, p *api.Problem) string {
	var b strings.Builder
	what := p.Title
	if f, ok := errors.AsType[*failure](err); ok {
		what = f.what + ": " + lowerFirst(p.Title)
	}
	fmt.Fprintf(&b, "wherry: %s\n", what)
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-10s %s\n", label+":", strings.ReplaceAll(text, "\n", "\n             "))
		}
	}
	line("phase", p.Phase)
	line("disk", p.Disk)
	line("cause", p.Detail)
	for _, f := range p.Fields {
		if !strings.Contains(p.Detail, f.Detail) {
			line("field", f.Field+": "+f.Detail)
		}
	}
	for _, r := range p.Reasons {
		line("reason", reasonText(r))
	}
	for _, s := range p.Sides {
		line(s.Side, sideText(s))
	}
	line("hint", p.Hint)
	for _, c := range p.Commands {
		line("settle by", c)
	}
	line("operation", p.Operation)
	if f, ok := errors.AsType[*failure](err); ok {
		for _, more := range f.facts {
			line(more.label, more.text)
		}
	}
	return b.String()
}

func reasonText(r api.Reason) string {
	if r.Disk != "" {
		return fmt.Sprintf("%s (disk %s): %s", r.Code, r.Disk, r.Detail)
	}
	return r.Code + ": " + r.Detail
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
