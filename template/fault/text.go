package fault

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxMessage bounds a message, in bytes.
const MaxMessage = 1 << 10

const ellipsis = "..."

// Clean makes one line of text that came from outside: what cannot be printed
// (control characters, colours, marks that turn the direction of writing,
// invalid UTF-8) becomes a space, runs of spaces become one, and more than
// limit bytes are cut at a whole character.
func Clean(text string, limit int) string {
	// Work on little more than is kept: a server chooses how long its text is.
	if room := 8 * max(limit, len(ellipsis)); len(text) > room {
		text = text[:room]
	}
	text = strings.Join(strings.FieldsFunc(text, func(c rune) bool {
		return c == utf8.RuneError || unicode.IsSpace(c) || !unicode.IsPrint(c)
	}), " ")
	if len(text) <= limit {
		return text
	}
	end := max(limit-len(ellipsis), 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return (text[:end] + ellipsis)[:min(end+len(ellipsis), max(limit, 0))]
}
