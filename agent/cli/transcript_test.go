package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var updateGolden = flag.Bool("update", false, "rewrite the transcripts")

// A transcript is a session as a person sees it. Lines that begin with "$" are
// commands; what follows is standard output as it is, standard error after
// "! ", what the agent was asked after "> ", and the exit status if it is not 0.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f := startFake(t)
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				switch {
				case strings.HasPrefix(line, "# ") && got.Len() > 0:
					got.WriteString("\n" + line)
				case strings.HasPrefix(line, "# "):
					got.WriteString(line)
				case strings.HasPrefix(line, "$ wherry"):
					got.WriteString("\n" + line)
					got.WriteString(session(t, f, commandWords(strings.TrimPrefix(strings.TrimSpace(line), "$ wherry"))))
				}
			}
			if *updateGolden {
				if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("(-transcript +this run):\n%s", diff)
			}
		})
	}
}

// session runs one command and gives what came of it.
func session(t *testing.T, f *fake, args []string) string {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp(strings.NewReader("<domain/>"), &out, &errs)
	a.now = func() time.Time { return created.Add(12 * time.Second) }
	status := a.run(append([]string{"--agent", "unix:" + f.socket}, args...), make(chan os.Signal))
	var b strings.Builder
	prefixed := func(prefix, text string) {
		for line := range strings.Lines(strings.ReplaceAll(text, f.socket, "SOCKET")) {
			b.WriteString(prefix + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	for _, request := range f.sent() {
		prefixed("> ", request)
	}
	prefixed("! ", errs.String())
	prefixed("", out.String())
	if status != exitDone {
		fmt.Fprintf(&b, "exit status %d\n", status)
	}
	return b.String()
}

// commandWords splits a command line at blanks outside of single quotes.
func commandWords(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}
