package http

import (
	"context"
	"net/http"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// deadlineWriter gives every write a deadline of its own: a long stream may
// take hours, but a reader that takes nothing for 30 s is gone.
type deadlineWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	stop    context.Context // ends the stream where it is set
	problem bool            // a problem was sent in place of the answer
}

func newDeadlineWriter(w http.ResponseWriter) *deadlineWriter {
	return &deadlineWriter{ResponseWriter: w, control: http.NewResponseController(w)}
}

// WriteHeader answers an impossible range with a problem document, where
// net/http would answer in plain text.
func (w *deadlineWriter) WriteHeader(status int) {
	if status != http.StatusRequestedRangeNotSatisfiable {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.problem = true
	w.Header().Del("Etag")
	writeProblem(w.ResponseWriter, api.NewProblem("bad-range", "the range lies outside the content (%s)", w.Header().Get("Content-Range")))
}

// Write sends b before its deadline, or fails.
func (w *deadlineWriter) Write(b []byte) (int, error) {
	if w.problem {
		return len(b), nil
	}
	if w.stop != nil && w.stop.Err() != nil {
		return 0, errDraining
	}
	if err := w.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
