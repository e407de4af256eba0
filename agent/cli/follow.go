package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// cancelTimeout bounds the request to cancel, not the undoing.
const cancelTimeout = 30 * time.Second

// leftError says that the operation runs on without anybody waiting for it.
type leftError struct{ id string }

func (e *leftError) Error() string { return fmt.Sprintf("operation %s is left running", e.id) }

// view shows how an operation gets on.
type view interface {
	update(op api.Operation)
	// stop leaves the screen to others; update may follow it.
	stop()
}

// follow shows an operation until it has ended. An interrupt asks a person
// whether to cancel or to leave, and leaves where nobody can be asked.
// what says what it is for.
func (a *app) follow(ctx context.Context, g operationReader, op api.Operation, what string) (api.Operation, error) {
	if op.Ended() {
		return op, nil
	}
	received, giveBack := a.signals.take()
	defer giveBack()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	view := a.newView(what)
	f := follower{app: a, calls: g, view: view, op: op, interactive: isTerminal(a.in) && isTerminal(a.err)}
	defer view.stop()
	view.update(op)
	return f.run(ctx, received, watch(ctx, g, op.ID))
}

// follower is the state of following one operation.
type follower struct {
	*app
	calls       operationReader
	view        view
	op          api.Operation
	interactive bool
	answers     <-chan string // lines typed, while a question is open
	lines       chan string   // all lines typed; nil before the first question
	cancelling  bool
}

func (f *follower) run(ctx context.Context, received <-chan os.Signal, updates <-chan update) (api.Operation, error) {
	for {
		var done bool
		var err error
		select {
		case <-ctx.Done():
			return f.op, fmt.Errorf("%w: %w", context.Cause(ctx), &leftError{f.op.ID})
		case u := <-updates:
			done, err = f.updated(u)
		case sig := <-received:
			err = f.interrupted(sig)
		case answer, open := <-f.answers:
			err = f.answered(ctx, answer, open)
		}
		if done || err != nil {
			return f.op, err
		}
	}
}

func (f *follower) updated(u update) (ended bool, err error) {
	if u.err != nil {
		return false, u.err
	}
	f.op = u.op
	asking := f.answers != nil
	if f.op.Ended() && asking {
		fmt.Fprintln(f.err, "\nit has ended meanwhile")
	}
	if !asking || f.op.Ended() {
		f.view.update(f.op)
	}
	return f.op.Ended(), nil
}

// interrupted asks, once: whoever interrupts the question wants to be gone.
func (f *follower) interrupted(sig os.Signal) error {
	f.view.stop()
	if sig != os.Interrupt || !f.interactive || f.answers != nil || f.cancelling {
		return &leftError{f.op.ID}
	}
	f.ask()
	return nil
}

func (f *follower) ask() {
	fmt.Fprint(f.err, "cancel the operation, or leave it running? [c/l] ")
	if f.lines == nil {
		f.lines = make(chan string)
		go readLines(f.in, f.lines)
	}
	f.answers = f.lines
}

func (f *follower) answered(ctx context.Context, answer string, open bool) error {
	f.answers = nil
	switch word := strings.ToLower(strings.TrimSpace(answer)); {
	case !open || word == "l" || word == "leave":
		return &leftError{f.op.ID}
	case word == "c" || word == "cancel":
		f.cancelling = true
		ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
		defer cancel()
		op, err := f.calls.Cancel(ctx, f.op.ID)
		if err != nil {
			return fmt.Errorf("cancel operation %s: %w", f.op.ID, err)
		}
		f.op = op
		fmt.Fprintln(f.err, "cancelling; what was done is being undone")
		return nil
	}
	f.ask()
	return nil
}

// readLines sends each line typed; it ends with its input or with the program.
func readLines(in io.Reader, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(in); s.Scan(); {
		lines <- s.Text()
	}
}

// update is what one look at the operation gave.
type update struct {
	op  api.Operation
	err error
}

// watch sends each look at the operation, the last one too, until it has
// ended, ctx ends, or looking fails for good.
func watch(ctx context.Context, g operationReader, id string) <-chan update {
	updates := make(chan update)
	send := func(u update) {
		select {
		case updates <- u:
		case <-ctx.Done():
		}
	}
	go func() {
		op, err := g.WaitOperation(ctx, id, func(op api.Operation) {
			if !op.Ended() {
				send(update{op: op})
			}
		})
		if ctx.Err() == nil { // else the reader knows
			send(update{op, err})
		}
	}()
	return updates
}
