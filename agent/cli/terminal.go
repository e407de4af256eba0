package cli

import (
	"os"

	"github.com/vbauerster/mpb/v8/cwriter"
	"golang.org/x/sys/unix"
)

// isTerminal tells whether a stream is a person's terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && cwriter.IsTerminal(int(f.Fd()))
}

// newView chooses how progress is shown: bars need a terminal that can move its
// cursor.
func (a *app) newView(what string) view {
	if isTerminal(a.err) && os.Getenv("TERM") != "dumb" {
		return newBarView(a.err, a.now, what)
	}
	return newLineView(a.err, a.now, what)
}

// terminalWidth is that of a terminal in columns, or 0 for what is none.
func terminalWidth(stream any) int {
	f, ok := stream.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
