package cli

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// proseWidth is the narrowest column that prose is wrapped into; where there
// is less, it goes below its row, indented by proseIndent.
const (
	proseWidth  = 30
	proseIndent = 4
)

// wrapLastColumn wraps the last column of a table of which the first line is
// the header. A width of 0 wraps nothing: what is no terminal is read by
// programs, line by line.
func wrapLastColumn(text []byte, width int) []byte {
	header, rows, _ := bytes.Cut(text, []byte("\n"))
	column := lastWord(string(header))
	if width == 0 || column == 0 {
		return text
	}
	var out strings.Builder
	out.WriteString(string(header) + "\n")
	for line := range strings.Lines(string(rows)) {
		out.WriteString(wrapLine(strings.TrimSuffix(line, "\n"), column, width) + "\n")
	}
	return []byte(out.String())
}

// lastWord is the column in which the last word of a line begins.
func lastWord(line string) int {
	return utf8.RuneCountInString(line[:strings.LastIndexByte(line, ' ')+1])
}

func wrapLine(line string, column, width int) string {
	runes := []rune(line)
	if len(runes) <= width || len(runes) <= column {
		return line
	}
	row, prose, indent := string(runes[:column]), string(runes[column:]), column
	lines := wrapWords(prose, width-column)
	if width-column < proseWidth {
		row, indent = strings.TrimRight(row, " ")+"\n"+spaces(proseIndent), proseIndent
		lines = wrapWords(prose, width-proseIndent)
	}
	return row + strings.Join(lines, "\n"+spaces(indent))
}

// wrapWords breaks at blanks only: an address or a path stays whole, to be
// copied.
func wrapWords(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
