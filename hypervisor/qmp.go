package hypervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"libvirt.org/go/libvirt"
)

// commandTimeout bounds one monitor command whose caller gave no deadline.
const commandTimeout = 15 * time.Second

// QMPError is QEMU's refusal of a command.
type QMPError struct {
	Class string // e.g. "GenericError", "CommandNotFound", "DeviceNotFound"
	Desc  string
}

func (e *QMPError) Error() string { return e.Desc }

// Monitor is the domain's QEMU monitor behind go-qemu's interface, carried by
// libvirt, which owns the socket. Its replies are whole QMP messages, as
// go-qemu's qmp/raw expects, and it may be used from many goroutines. Commands
// are for looking only: libvirt does not see what they change.
func (c *Client) Monitor(name string) qmp.Monitor { return &monitor{c: c, name: name} }

type monitor struct {
	c    *Client
	name string
}

// Connect has nothing to do: libvirt holds the monitor's socket.
func (m *monitor) Connect() error { return nil }

// Disconnect has nothing to do, see Connect.
func (m *monitor) Disconnect() error { return nil }

// Run sends one command. A refusal is a *QMPError.
func (m *monitor) Run(command []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return m.c.qmp(ctx, m.name, command)
}

// Events delivers the domain's QMP events until ctx or the connection ends. A
// reader that is slow loses events, it delays nobody.
func (m *monitor) Events(ctx context.Context) (<-chan qmp.Event, error) {
	var out qmpEvents
	out.ch = make(chan qmp.Event, queue)
	return onControl(ctx, m.c, "subscribe to QMP events of", m.name, func(l *link) (<-chan qmp.Event, error) {
		d, free, err := l.domain(m.name)
		if err != nil {
			return nil, err
		}
		// The binding cannot pass NULL, libvirt's "every event"; "" would match none.
		id, err := l.conn.DomainQemuMonitorEventRegister(d, ".*", func(_ *libvirt.Connect, _ *libvirt.Domain, e *libvirt.DomainQemuMonitorEvent) {
			out.send(qmpEvent(e))
		}, libvirt.CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX)
		if err != nil {
			free()
			return nil, err
		}
		if !l.retain() {
			free()
			return nil, ErrDown
		}
		go func() {
			select {
			case <-ctx.Done():
			case <-l.lost:
			}
			if err := l.conn.DomainQemuEventDeregister(id); err != nil {
				l.log.Debug("deregister QMP events", "domain", m.name, "err", err)
			}
			out.close()
			free()
			l.release()
		}()
		return out.ch, nil
	})
}

// qmpEvents is a channel that may be closed while libvirt's event loop is still
// inside a callback that sends: deregistering does not wait for it.
type qmpEvents struct {
	mu     sync.Mutex
	ch     chan qmp.Event
	closed bool
}

func (q *qmpEvents) send(e qmp.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	select {
	case q.ch <- e:
	default:
	}
}

func (q *qmpEvents) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	close(q.ch)
}

func qmpEvent(e *libvirt.DomainQemuMonitorEvent) qmp.Event {
	ev := qmp.Event{Event: e.Event}
	ev.Timestamp.Seconds, ev.Timestamp.Microseconds = e.Seconds, int64(e.Micros)
	if e.Details != "" {
		_ = json.Unmarshal([]byte(e.Details), &ev.Data) // an event without its data is still an event
	}
	return ev
}

// qmp sends one command and returns the whole reply.
func (c *Client) qmp(ctx context.Context, name string, command []byte) ([]byte, error) {
	return withDomain(ctx, c, "ask QEMU of", name, func(_ *link, d *libvirt.Domain) ([]byte, error) {
		text, err := d.QemuMonitorCommand(string(command), libvirt.DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
		if err != nil {
			return nil, err
		}
		if _, err := qmpReturn([]byte(text)); err != nil {
			return nil, err
		}
		return []byte(text), nil
	})
}

// query runs a command without arguments and returns what is under "return".
func (c *Client) query(ctx context.Context, name, command string, args any) (json.RawMessage, error) {
	ctx, cancel := withTimeout(ctx, commandTimeout)
	defer cancel()
	raw, err := json.Marshal(qmp.Command{Execute: command, Args: args})
	if err != nil {
		return nil, err
	}
	reply, err := c.qmp(ctx, name, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return qmpReturn(reply)
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// maxReply bounds a monitor reply; the largest real one, query-qmp-schema, is
// a few hundred KiB.
const maxReply = 16 << 20

// qmpReturn takes a reply apart: its return value, or its error as *QMPError.
func qmpReturn(reply []byte) (json.RawMessage, error) {
	if len(reply) > maxReply {
		return nil, fmt.Errorf("QMP reply of %d bytes is too large", len(reply))
	}
	var r struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(reply, &r); err != nil {
		return nil, fmt.Errorf("parse QMP reply: %w", err)
	}
	if r.Error != nil {
		return nil, &QMPError{Class: r.Error.Class, Desc: r.Error.Desc}
	}
	if r.Return == nil {
		return nil, fmt.Errorf("parse QMP reply: neither return nor error")
	}
	return r.Return, nil
}
