package cli

import (
	"os"

	"github.com/vbauerster/mpb/v8/cwriter"
)

// isTerminal tells whether a stream is a person's terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && cwriter.IsTerminal(int(f.Fd()))
}

// newView chooses how progress is shown: bars need a terminal that can move its
// cursor.
func (a *app) newView() view {
	if isTerminal(a.err) && os.Getenv("TERM") != "dumb" {
		return newBarView(a.err, a.now)
	}
	return newLineView(a.err, a.now)
}
