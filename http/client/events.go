package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

const (
	// eventSilence is how long a stream may bring nothing, heartbeats included:
	// four of the server's.
	eventSilence = time.Minute
	// maxEvent bounds an event, in bytes.
	maxEvent = 4 << 20
)

// Events calls each with every event after the id (0: from the beginning of
// what the agent keeps), then live, until ctx ends or each returns an error,
// which Events returns. A stream that ends, be it because the reader was too
// slow, is taken up again after the last id seen, so that none is missed.
func (c *Client) Events(ctx context.Context, after uint64, each func(api.Event) error) error {
	retry := c.retry()
	for {
		err := c.eventStream(ctx, after, retry.connected, func(e api.Event) error {
			retry.reset()
			if e.ID > after {
				after = e.ID
			}
			if err := each(e); err != nil {
				return &stopped{err}
			}
			return nil
		})
		if e, ok := errors.AsType[*stopped](err); ok {
			return e.err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil { // the agent ended it in good order
			err = &Unreachable{Address: c.address, Stage: StageExchange, Err: io.EOF}
		}
		if !passing(err) {
			return err
		}
		if err := retry.pause(ctx, err); err != nil {
			return err
		}
	}
}

// stopped tells the caller's error from the stream's.
type stopped struct{ err error }

func (s *stopped) Error() string { return s.err.Error() }

// eventStream reads one stream to its end.
func (c *Client) eventStream(ctx context.Context, after uint64, connected func(), each func(api.Event) error) error {
	r := get("v1", "events")
	r.header = http.Header{"Accept": {"text/event-stream"}}
	if after > 0 {
		r.header.Set("Last-Event-Id", strconv.FormatUint(after, 10))
	}
	resp, err := c.stream(ctx, r, eventSilence)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	connected()
	return readEvents(resp.Body, each)
}

// readEvents parses server-sent events (HTML standard, section 9.2.6) as far
// as an agent uses them: the data is the whole event. An event that the end
// of the stream cut is dropped, as the standard says.
func readEvents(r io.Reader, each func(api.Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	var data []string
	size := 0
	for lines.Scan() {
		line := lines.Text()
		if text, ok := strings.CutPrefix(line, "data:"); ok {
			if size += len(text); size > maxEvent {
				return api.NewProblem("peer-failed", "an event has more than %d bytes", maxEvent)
			}
			data = append(data, strings.TrimPrefix(text, " "))
		}
		if line != "" || data == nil {
			continue
		}
		var e api.Event
		if err := json.Unmarshal([]byte(strings.Join(data, "\n")), &e); err != nil {
			return api.NewProblem("peer-failed", "an event cannot be read: %w", err)
		}
		data, size = nil, 0
		if err := each(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}
