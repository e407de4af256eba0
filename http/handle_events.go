package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// eventWriteTimeout is how long a reader may leave an event unread. Then it is
// dropped; it comes back with Last-Event-ID and misses nothing.
const eventWriteTimeout = 10 * time.Second

// events streams server-sent events (HTML standard, section 9.2) until the
// reader leaves, falls behind, or the server shuts down.
func (s *Server) events(c *call) error {
	after, err := lastEventID(c.Request().Header.Get("Last-Event-ID"))
	if err != nil {
		return err
	}
	ctx, cancel := s.untilDrained(c)
	defer cancel()
	events, err := s.opts.Operations.Events(ctx, after)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	c.Response().WriteHeader(http.StatusOK)
	// At once, so that the reader knows that it is connected.
	if err := s.sendEvent(c, []byte(": connected\n\n")); err != nil {
		return nil
	}
	beat := time.NewTicker(s.opts.Heartbeat)
	defer beat.Stop()
	for {
		var text []byte
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			text = []byte(": heartbeat\n\n")
		case e, ok := <-events:
			if !ok {
				return nil
			}
			if text, err = eventText(e); err != nil {
				return err
			}
		}
		if err := s.sendEvent(c, text); err != nil {
			s.log.Debug("event reader dropped", "remote", c.Request().RemoteAddr, "error", err)
			return nil
		}
	}
}

func (s *Server) sendEvent(c *call, text []byte) error {
	rc := http.NewResponseController(c.Response())
	if err := rc.SetWriteDeadline(time.Now().Add(s.unread)); err != nil {
		return err
	}
	if _, err := c.Response().Write(text); err != nil {
		return err
	}
	return rc.Flush()
}

// eventText gives the event in its wire form. One without an id, which no
// replay could find again, leaves the reader's last id as it is.
func eventText(e api.Event) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event %d: %w", e.ID, err)
	}
	var b bytes.Buffer
	if e.ID != 0 {
		fmt.Fprintf(&b, "id: %d\n", e.ID)
	}
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", e.Kind, data)
	return b.Bytes(), nil
}

func lastEventID(v string) (uint64, error) {
	if v == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		var f faults
		f.add("Last-Event-ID", "must be the id of an event")
		return 0, f.problem()
	}
	return id, nil
}
