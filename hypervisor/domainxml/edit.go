package domainxml

import (
	"fmt"
	"slices"
	"strings"
)

// edit replaces text[start:end].
type edit struct {
	start, end int
	with       string
}

// patch collects edits of one text. Edits may not overlap.
type patch struct {
	text  string
	edits []edit
}

func (p *patch) replace(start, end int, with string) {
	p.edits = append(p.edits, edit{start, end, with})
}

// remove takes an element away with the indentation before it, so that no
// empty line stays.
func (p *patch) remove(n *node) {
	start := n.start
	for start > 0 && isSpace(p.text[start-1]) {
		start--
	}
	if start > 0 && p.text[start-1] != '>' {
		start = n.start // the space belongs to text
	}
	p.replace(start, n.end, "")
}

// setAttr gives an element an attribute, keeping the quotes it has.
func (p *patch) setAttr(n *node, name, value string) {
	if a, ok := n.attr(name); ok {
		if a.value != value {
			p.replace(a.valStart, a.valEnd, escape(value))
		}
		return
	}
	at := n.tagEnd - 1
	if n.selfClosed {
		at--
	}
	for isSpace(p.text[at-1]) {
		at--
	}
	p.replace(at, at, " "+name+"='"+escape(value)+"'")
}

// dropAttr removes an attribute with the space before it.
func (p *patch) dropAttr(n *node, name string) {
	a, ok := n.attr(name)
	if !ok {
		return
	}
	start := a.start
	for isSpace(p.text[start-1]) {
		start--
	}
	p.replace(start, a.valEnd+1, "")
}

// insertFirst puts text at the start of the content of an element that has
// children.
func (p *patch) insertFirst(n *node, with string) {
	p.replace(n.tagEnd, n.tagEnd, with)
}

// apply makes the edited text.
func (p *patch) apply() (string, error) {
	// Stable: insertions at one place keep the order they were made in.
	slices.SortStableFunc(p.edits, func(a, b edit) int {
		if a.start != b.start {
			return a.start - b.start
		}
		return a.end - b.end
	})
	var out strings.Builder
	at := 0
	for _, e := range p.edits {
		if e.start < at {
			return "", fmt.Errorf("edits overlap at byte %d", e.start)
		}
		out.WriteString(p.text[at:e.start])
		out.WriteString(e.with)
		at = e.end
	}
	out.WriteString(p.text[at:])
	return out.String(), nil
}

// escape makes a string safe in text and in attributes of either quote. Line
// ends and tabs are written as references, for a parser would normalise them.
var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;", "\n", "&#10;", "\r", "&#13;", "\t", "&#9;")

func escape(s string) string { return escaper.Replace(s) }
