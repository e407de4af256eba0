package cli

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// running is a command that has not ended.
type running struct {
	t       *testing.T
	signals chan os.Signal
	status  chan int
	out     *bytes.Buffer // to be read after its end
}

func begin(t *testing.T, f *fake, in io.Reader, errs io.Writer, args ...string) *running {
	t.Helper()
	r := &running{t: t, signals: make(chan os.Signal), status: make(chan int, 1), out: &bytes.Buffer{}}
	a := newApp(in, r.out, errs)
	go func() { r.status <- a.run(append([]string{"--agent", "unix:" + f.socket}, args...), r.signals) }()
	return r
}

func (r *running) interrupt(s os.Signal) {
	r.t.Helper()
	select {
	case r.signals <- s:
	case <-time.After(20 * time.Second):
		r.t.Fatal("nobody takes the signal")
	}
}

func (r *running) end(want int) {
	r.t.Helper()
	select {
	case got := <-r.status:
		if got != want {
			r.t.Errorf("exit status %d, want %d", got, want)
		}
	case <-time.After(20 * time.Second):
		r.t.Fatal("the command does not end")
	}
}

func cancelled(f *fake) []string {
	var out []string
	for {
		select {
		case id := <-f.cancels:
			out = append(out, id)
		default:
			return out
		}
	}
}

// Without a terminal nobody can be asked: the operation is left running, and
// the person is told how to come back to it.
func TestInterruptWithoutTerminalLeaves(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		f := startFake(t)
		var errs bytes.Buffer
		r := begin(t, f, strings.NewReader(""), &errs, "migrate", "slow", "hostb")
		<-f.watched
		r.interrupt(signal)
		r.end(exitFailed)
		for _, want := range []string{"left running", "wherry operation wait op-slow", "wherry operation cancel op-slow"} {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%v: %q is missing in:\n%s", signal, want, errs.String())
			}
		}
		if ids := cancelled(f); len(ids) > 0 {
			t.Errorf("%v cancelled %v", signal, ids)
		}
	}
}

const question = "cancel the operation, or leave it running? [c/l] "

func onTerminal(t *testing.T) (*fake, *terminal, *running) {
	t.Helper()
	t.Setenv("TERM", "xterm")
	f, x := startFake(t), openTerminal(t)
	r := begin(t, f, x.child, x.child, "migrate", "slow", "hostb")
	x.await(t, "memory", 1)
	return f, x, r
}

func TestInterruptOnTerminalCancels(t *testing.T) {
	f, x, r := onTerminal(t)
	r.interrupt(os.Interrupt)
	x.await(t, question, 1)
	x.typeLine(t, "perhaps")
	x.await(t, question, 2)
	if ids := cancelled(f); len(ids) > 0 {
		t.Errorf("cancelled %v before the person said so", ids)
	}
	x.typeLine(t, "c")
	r.end(exitFailed)
	if ids := cancelled(f); len(ids) != 1 || ids[0] != "op-slow" {
		t.Errorf("cancelled %v, want op-slow", ids)
	}
	x.await(t, "the operation was cancelled", 1)
}

func TestInterruptOnTerminalLeaves(t *testing.T) {
	for name, leave := range map[string]func(x *terminal, r *running){
		"by the letter":           func(x *terminal, r *running) { x.typeLine(r.t, "l") },
		"by another Ctrl-C":       func(_ *terminal, r *running) { r.interrupt(os.Interrupt) },
		"by the end of the input": func(x *terminal, _ *running) { _, _ = x.keys.WriteString("\x04") },
		"by SIGTERM":              func(_ *terminal, r *running) { r.interrupt(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			f, x, r := onTerminal(t)
			r.interrupt(os.Interrupt)
			x.await(t, question, 1)
			leave(x, r)
			r.end(exitFailed)
			x.await(t, "left running", 1)
			if ids := cancelled(f); len(ids) > 0 {
				t.Errorf("cancelled %v", ids)
			}
		})
	}
}

// An operation that ends while the question is open needs no answer.
func TestOperationEndsDuringTheQuestion(t *testing.T) {
	f, x, r := onTerminal(t)
	r.interrupt(os.Interrupt)
	x.await(t, question, 1)
	f.begin(moving("op-slow", "slow", 99, 1, 1), operation("op-slow", "migrate", "slow", "succeeded", ""))
	r.end(exitDone)
	x.await(t, "it has ended meanwhile", 1)
}

func TestBarsOnTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	f, x := startFake(t), openTerminal(t)
	r := begin(t, f, x.child, x.child, "migrate", "vm1", "hostb")
	r.end(exitDone)
	for _, want := range []string{"migrate vm1 (op-vm1): ", "vda ", "memory ", "of 768.0 MiB", "of 256.0 MiB"} {
		x.await(t, want, 1)
	}
	if !strings.Contains(r.out.String(), "vm1 runs on hostb now") || strings.Contains(r.out.String(), "\x1b") {
		t.Errorf("the result on standard output:\n%q", r.out.String())
	}
}

func TestDumbTerminalGetsLines(t *testing.T) {
	t.Setenv("TERM", "dumb")
	f, x := startFake(t), openTerminal(t)
	begin(t, f, x.child, x.child, "migrate", "vm1", "hostb").end(exitDone)
	x.await(t, "migrate vm1 (op-vm1): succeeded", 1)
	if strings.Contains(x.text(), "\x1b") {
		t.Errorf("control sequences on a dumb terminal: %q", x.text())
	}
}

// An interrupt before there is an operation just ends the command.
func TestInterruptOfAWaitWithDeadline(t *testing.T) {
	f := startFake(t)
	f.begin(moving("op-slow", "slow", 1, 1, 1), moving("op-slow", "slow", 2, 2, 2))
	var errs bytes.Buffer
	begin(t, f, strings.NewReader(""), &errs, "operation", "wait", "op-slow", "--timeout", "100ms").end(exitFailed)
	if !strings.Contains(errs.String(), "op-slow is left running") {
		t.Errorf("after the timeout:\n%s", errs.String())
	}
}

func TestEventsUntilInterrupted(t *testing.T) {
	for output, want := range map[string]string{
		"table": "2  2026-11-21T10:00:01Z  operation  vm1  migrate running, perform\n3  2026-11-21T10:00:02Z  instance  web/front  stopped\n",
		"json": `{"id":2,"kind":"operation","at":"2026-11-21T10:00:01Z","project":"default","instance":"vm1",` +
			`"operation":{"id":"op-1","kind":"migrate","project":"default","instance":"vm1","status":"running","phase":"perform",` +
			`"progress":{"percent":0,"bytes_done":0,"bytes_total":0,"rate":0},"steps":[],"created_at":"2026-11-21T10:00:00Z","updated_at":"2026-11-21T10:00:00Z","cancellable":true}}` + "\n" +
			`{"id":3,"kind":"instance","at":"2026-11-21T10:00:02Z","project":"web","instance":"front","detail":"stopped"}` + "\n",
	} {
		f := startFake(t)
		received := make(chan os.Signal)
		lines := &countingWriter{when: 2, then: func() { received <- os.Interrupt }}
		a := newApp(strings.NewReader(""), lines, io.Discard)
		if status := a.run([]string{"--agent", "unix:" + f.socket, "events", "--after", "1", "-o", output}, received); status != exitDone {
			t.Errorf("exit status %d", status)
		}
		if got := lines.String(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", output, got, want)
		}
	}
}

// countingWriter does something when it has got a number of lines.
type countingWriter struct {
	bytes.Buffer
	when int
	then func()
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Count(w.String(), "\n") == w.when {
		w.then()
	}
	return n, err
}

// A download of an unknown length has no percent to show, only what came.
func TestBarOfAnUnknownLength(t *testing.T) {
	f, x := startFake(t), openTerminal(t)
	op := operation("op-slow", templateKind, "", api.StatusRunning, "download")
	op.Progress = api.Progress{BytesDone: 5 << 20}
	f.begin(op, op)
	r := begin(t, f, x.child, x.child, "operation", "wait", "op-slow")
	x.await(t, "5.0 MiB", 1)
	x.await(t, "<=>", 1)
	r.interrupt(syscall.SIGTERM)
	r.end(exitFailed)
	if strings.Contains(x.text(), "%") || strings.Contains(x.text(), "of 0 B") {
		t.Errorf("a percent of nothing: %q", x.text())
	}
}

func TestBarSaysWhatItWaitsFor(t *testing.T) {
	f, x := startFake(t), openTerminal(t)
	op := operation("op-slow", templateKind, "", api.StatusRunning, "download")
	op.Progress.Detail = "waiting: 4 downloads at once"
	f.begin(op, op)
	r := begin(t, f, x.child, x.child, "operation", "wait", "op-slow")
	x.await(t, "download: waiting: 4 downloads at once", 1)
	r.interrupt(syscall.SIGTERM)
	r.end(exitFailed)
}

func TestTableIsWrappedOnTerminal(t *testing.T) {
	f, x := startFake(t), openTerminal(t)
	a := newApp(x.child, x.child, x.child)
	a.now = func() time.Time { return created }
	if status := a.run([]string{"--agent", "unix:" + f.socket, "template", "list"}, make(chan os.Signal)); status != exitDone {
		t.Errorf("exit status %d", status)
	}
	x.await(t, "old ", 1)
	for line := range strings.Lines(x.text()) {
		if n := len(strings.TrimRight(line, "\r\n")); n > 100 {
			t.Errorf("%d columns on a terminal of 100: %q", n, line)
		}
	}
}
