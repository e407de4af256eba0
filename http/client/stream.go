package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// stream sends r for an answer that may take any time, but must not fall
// silent: no byte for the given time ends it.
func (c *Client) stream(ctx context.Context, r request, limit time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(&silence{limit}) })
	resp, err := c.send(ctx, r)
	timer.Stop()
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &watched{
		ReadCloser: resp.Body, timer: timer, limit: limit, cancel: cancel,
		lost: func(err error) error { return c.lost(ctx, r, err) },
	}
	return resp, nil
}

// watched is a body whose reads have a time limit each. A reader that itself
// takes long between two reads is not the agent's fault.
type watched struct {
	io.ReadCloser
	timer  *time.Timer
	limit  time.Duration
	cancel context.CancelCauseFunc
	lost   func(error) error
}

// Read reads as the body does; its errors are those of a call.
func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.limit)
	n, err := w.ReadCloser.Read(p)
	w.timer.Stop()
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, w.lost(err)
}

// Close ends the stream, read or not.
func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}
