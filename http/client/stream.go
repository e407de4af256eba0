package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// stream sends r for an answer that may take any time, but must not fall
// silent: no byte for the given time ends it.
func (c *Client) stream(ctx context.Context, r request, silence time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	quiet := fmt.Errorf("nothing came for %s", silence)
	timer := time.AfterFunc(silence, func() { cancel(quiet) })
	resp, err := c.send(ctx, r)
	timer.Stop()
	if err != nil {
		if context.Cause(ctx) == quiet {
			err = &Unreachable{Address: c.address, Stage: StageExchange, Err: quiet}
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &watched{body: resp.Body, client: c, ctx: ctx, cancel: cancel, timer: timer, silence: silence, quiet: quiet}
	return resp, nil
}

// watched is a body whose reads have a time limit each. A reader that itself
// takes long between two reads is not the agent's fault.
type watched struct {
	body    io.ReadCloser
	client  *Client
	ctx     context.Context //nolint:containedctx // the stream's own, ended by Close
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	silence time.Duration
	quiet   error
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.silence)
	n, err := w.body.Read(p)
	w.timer.Stop()
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // io.Reader's own contract
		return n, err
	case context.Cause(w.ctx) == w.quiet:
		err = w.quiet
	case w.ctx.Err() != nil:
		return n, context.Cause(w.ctx)
	}
	return n, &Unreachable{Address: w.client.address, Stage: StageExchange, Err: err}
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.body.Close()
	w.cancel(nil)
	return err
}
