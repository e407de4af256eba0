package http

import (
	"context"
	"net/http"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// paceBytes is what a reader must take within each deadline. Counted in bytes
// and not in writes, since a dribble would otherwise hold a sender's place
// for as long as it likes.
const paceBytes = 1 << 20

// deadlineWriter gives every MiB of an answer a deadline: a long stream may
// take hours, but a reader that takes less than that in 30 s is as good as
// gone. It comes back and goes on from where it was cut.
type deadlineWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	stop    context.Context // ends the stream where it is set
	sent    func(int64)     // hears how many bytes were sent, where it is set
	pace    time.Duration   // for each MiB
	left    int64           // bytes under the present deadline
	until   time.Time       // that deadline
	wait    func(int) error // until so many bytes may be sent, where it is set
	problem bool            // a problem was sent in place of the answer
}

func newDeadlineWriter(w http.ResponseWriter) *deadlineWriter {
	return &deadlineWriter{ResponseWriter: w, control: http.NewResponseController(w), pace: writeTimeout}
}

// WriteHeader answers an impossible range with a problem document, where
// net/http would answer in plain text.
func (w *deadlineWriter) WriteHeader(status int) {
	if status != http.StatusRequestedRangeNotSatisfiable {
		// Also for an answer without content: the connection has the deadline of
		// its last answer still, which may be long over.
		_ = w.control.SetWriteDeadline(time.Now().Add(w.pace)) // a writer that has none fails no later
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.problem = true
	w.Header().Del("Etag")
	writeProblem(w.ResponseWriter, api.NewProblem("bad-range", "the range lies outside the content (%s)", w.Header().Get("Content-Range")))
}

// waitedBytes are sent at once where bytes are waited for.
const waitedBytes = 64 << 10

// Write sends b before the deadline, or fails.
func (w *deadlineWriter) Write(b []byte) (sent int, err error) {
	if w.problem {
		return len(b), nil
	}
	if w.wait == nil {
		return w.write(b)
	}
	for err == nil && sent < len(b) {
		part := b[sent:min(sent+waitedBytes, len(b))]
		if err = w.await(len(part)); err == nil {
			var n int
			n, err = w.write(part)
			sent += n
		}
	}
	return sent, err
}

// await does not count as the reader's time.
func (w *deadlineWriter) await(n int) error {
	began := time.Now()
	if err := w.wait(n); err != nil || w.left <= 0 {
		return err
	}
	w.until = w.until.Add(time.Since(began))
	return w.control.SetWriteDeadline(w.until)
}

func (w *deadlineWriter) write(b []byte) (int, error) {
	if w.stop != nil && w.stop.Err() != nil {
		return 0, errDraining
	}
	if w.left <= 0 {
		w.until = time.Now().Add(w.pace)
		if err := w.control.SetWriteDeadline(w.until); err != nil {
			return 0, err
		}
		w.left = paceBytes
	}
	n, err := w.ResponseWriter.Write(b)
	w.left -= int64(n)
	if w.sent != nil {
		w.sent(int64(n))
	}
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Share is what one stream may send of the host's bandwidth.
type Share interface {
	// Wait returns when n bytes may be sent.
	Wait(ctx context.Context, n int) error
	Close()
}
