package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxHeaderFile bounds a file of headers, in bytes.
const maxHeaderFile = 64 << 10

// headerMap reads the headers of a download, "Name: value". Those that are
// secret are better in a file, "@FILE": everybody may see the arguments of a
// process.
func headerMap(headers []string) (map[string]string, error) {
	var out map[string]string
	for _, h := range headers {
		lines := []string{h}
		if file, found := strings.CutPrefix(h, "@"); found {
			var err error
			if lines, err = headerLines(file); err != nil {
				return nil, err
			}
		}
		for _, line := range lines {
			name, value, found := strings.Cut(line, ":")
			if !found || strings.TrimSpace(name) == "" {
				// The value may be a secret: it is not repeated.
				return nil, errors.New("a header is written \"Name: value\"")
			}
			if out == nil {
				out = map[string]string{}
			}
			out[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return out, nil
}

// headerLines gives the lines of a file that are not empty.
func headerLines(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxHeaderFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("headers: %w", err)
	case len(text) > maxHeaderFile:
		return nil, fmt.Errorf("headers: %q is over %d bytes", path, maxHeaderFile)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) != "" {
			out = append(out, line)
		}
	}
	return out, nil
}
