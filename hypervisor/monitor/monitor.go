package monitor

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	libvirtFolder = "/run/libvirt/qemu"

	maxState = 8 << 20 // of libvirt's state of a domain, which holds its XML
	maxReply = 1 << 20
)

// ErrNone says that libvirt has left no state of the domain: it does not run.
var ErrNone = errors.New("no state of the domain")

// Host finds the monitors of this host. The zero value looks where the system's
// libvirt has its state.
type Host struct {
	Run string // "" = /run/libvirt/qemu
}

// Press presses the power button (system_powerdown of the QEMU Machine
// Protocol), and does not wait for what comes of it.
func (h Host) Press(ctx context.Context, name, uuid string) error {
	_, err := h.ask(ctx, name, uuid, "system_powerdown")
	return err
}

// Resume lets the domain's CPUs run (cont).
func (h Host) Resume(ctx context.Context, name, uuid string) error {
	_, err := h.ask(ctx, name, uuid, "cont")
	return err
}

// Wakeup wakes a guest that was suspended to memory by itself (system_wakeup).
func (h Host) Wakeup(ctx context.Context, name, uuid string) error {
	_, err := h.ask(ctx, name, uuid, "system_wakeup")
	return err
}

// Status gives QEMU's own word for the state of the domain, a RunState of its
// protocol (query-status).
func (h Host) Status(ctx context.Context, name, uuid string) (string, error) {
	reply, err := h.ask(ctx, name, uuid, "query-status")
	if err != nil {
		return "", err
	}
	var status struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(reply, &status); err != nil || status.Status == "" {
		return "", fmt.Errorf("monitor of %q: query-status: %q tells no state: %w", name, reply, cmp.Or(err, errNoState))
	}
	return status.Status, nil
}

var errNoState = errors.New("it is not there")

// ask says one command to the domain's QEMU, and gives what it returned.
func (h Host) ask(ctx context.Context, name, uuid, command string) (json.RawMessage, error) {
	path, err := h.socket(name, uuid)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("monitor of %q: %w", name, err)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	reply, err := talk(conn, command)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("monitor of %q: %s: %w", name, command, err)
	}
	return reply, nil
}

// talk does what the protocol's specification (QEMU, interop/qmp-spec) asks of
// a client: read the greeting, negotiate, and then one command.
func talk(conn io.ReadWriter, command string) (reply json.RawMessage, err error) {
	replies := json.NewDecoder(bufio.NewReader(io.LimitReader(conn, maxReply)))
	var greeting struct {
		QMP *struct{} `json:"QMP"`
	}
	if err := replies.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("no greeting: %w", err)
	}
	if greeting.QMP == nil {
		return nil, errors.New("what answers is no monitor")
	}
	for _, c := range []string{"qmp_capabilities", command} {
		if _, err := fmt.Fprintf(conn, `{"execute":%q}`+"\n", c); err != nil {
			return nil, err
		}
		if reply, err = answer(replies); err != nil {
			return nil, err
		}
	}
	return reply, nil
}

// answer reads up to the reply of a command; events may come before it.
func answer(replies *json.Decoder) (json.RawMessage, error) {
	for {
		var reply struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Class string `json:"class"`
				Desc  string `json:"desc"`
			} `json:"error"`
		}
		if err := replies.Decode(&reply); err != nil {
			return nil, err
		}
		switch {
		case reply.Error != nil:
			return nil, fmt.Errorf("%s: %s", reply.Error.Class, reply.Error.Desc)
		case reply.Return != nil:
			return reply.Return, nil
		}
	}
}

// socket reads where libvirt has put the domain's monitor. The state has to be
// that domain's: one of the same name would be another instance.
func (h Host) socket(name, uuid string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("%q cannot be the name of a domain", name)
	}
	file, err := os.Open(filepath.Join(cmp.Or(h.Run, libvirtFolder), name+".xml"))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%q: %w", name, ErrNone)
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	path, found, err := parseState(io.LimitReader(file, maxState))
	switch {
	case err != nil:
		return "", fmt.Errorf("libvirt's state of %q: %w", name, err)
	case !strings.EqualFold(found, uuid):
		return "", fmt.Errorf("libvirt's state of %q is that of UUID %q", name, found)
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("libvirt's state of %q names no monitor", name)
	}
	return path, nil
}

func parseState(r io.Reader) (path, uuid string, err error) {
	var state struct {
		XMLName xml.Name `xml:"domstatus"`
		Monitor struct {
			Path string `xml:"path,attr"`
			Type string `xml:"type,attr"`
		} `xml:"monitor"`
		UUID string `xml:"domain>uuid"`
	}
	if err := xml.NewDecoder(r).Decode(&state); err != nil {
		return "", "", err
	}
	if state.Monitor.Type != "unix" {
		return "", state.UUID, nil
	}
	return state.Monitor.Path, strings.TrimSpace(state.UUID), nil
}
