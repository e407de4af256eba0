package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/wherry-kvm/wherry/http/api"
)

// finish takes the answer to a request for long work, sees the operation to
// its end unless told not to wait, and ends as it did.
func (a *app) finish(ctx context.Context, g operationReader, what string, op api.Operation, err error, noWait bool) error {
	if err != nil {
		return failed(what, err)
	}
	if noWait {
		return a.printID(op)
	}
	if op, err = a.follow(ctx, g, op, what); err != nil {
		return failed(what, err)
	}
	if op.Status == api.StatusSucceeded {
		return a.print(op, func(w io.Writer) { resultText(w, what, op) })
	}
	return a.endedBadly(what, op)
}

// finishCancelled sees a cancelled operation to its end: that it was undone is
// the success here.
func (a *app) finishCancelled(ctx context.Context, g operationReader, op api.Operation, noWait bool) error {
	if noWait {
		return a.printID(op)
	}
	what := "cancel operation " + op.ID
	op, err := a.follow(ctx, g, op, what)
	if err != nil {
		return failed(what, err)
	}
	switch op.Status {
	case api.StatusCancelled:
		return a.print(op, func(w io.Writer) { fmt.Fprintf(w, "operation %s is cancelled\n", op.ID) })
	case api.StatusSucceeded:
		return failed(what, fmt.Errorf("it had succeeded already"))
	}
	return a.endedBadly(what, op)
}

func (a *app) printID(op api.Operation) error {
	return a.print(op, func(w io.Writer) { fmt.Fprintln(w, op.ID) })
}

// endedBadly gives the error of an operation that did not succeed. A machine
// gets the whole operation as the result, not only its problem.
func (a *app) endedBadly(what string, op api.Operation) error {
	if a.global.output != outputTable {
		if err := a.print(op, nil); err != nil {
			return err
		}
	}
	if op.Error == nil {
		return &failure{what: what, err: fmt.Errorf("operation %s ended as %s", op.ID, op.Status), shown: true}
	}
	p := *op.Error
	if p.Operation == "" {
		p.Operation = op.ID
	}
	if p.Phase == "" {
		p.Phase = op.Phase
	}
	return &failure{what: what, err: &p, shown: true}
}
