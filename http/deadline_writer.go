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

// Write sends b before the deadline, or fails.
func (w *deadlineWriter) Write(b []byte) (int, error) {
	if w.problem {
		return len(b), nil
	}
	if w.stop != nil && w.stop.Err() != nil {
		return 0, errDraining
	}
	if w.left <= 0 {
		if err := w.control.SetWriteDeadline(time.Now().Add(w.pace)); err != nil {
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
