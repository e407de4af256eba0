package domainxml

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on what is accepted. A domain with a hundred disks of long chains is
// far below them.
const (
	maxBytes    = 4 << 20
	maxDepth    = 512 // libvirt allows chains of 200 layers, each one element deeper
	maxElements = 200_000
)

// ErrInvalid is what every refusal of XML wraps.
var ErrInvalid = errors.New("invalid domain XML")

// attr is one attribute with its place in the text.
type attr struct {
	name     string // as written, with its prefix
	value    string // decoded
	start    int    // of the name
	valStart int    // of the value, inside the quotes
	valEnd   int
}

// node is one element with its place in the text.
type node struct {
	space, name string // space is the resolved namespace, "" for libvirt's own
	attrs       []attr
	start       int // of "<"
	tagEnd      int // after the ">" of the start tag
	endTag      int // of the end tag; equals tagEnd for <x/>
	end         int // after the element
	selfClosed  bool
	text        strings.Builder // character data directly inside, decoded
	children    []*node
	parent      *node
}

// get returns an attribute's value, "" when it is absent.
func (n *node) get(name string) string {
	if n == nil {
		return ""
	}
	for _, a := range n.attrs {
		if a.name == name {
			return a.value
		}
	}
	return ""
}

func (n *node) attr(name string) (attr, bool) {
	for _, a := range n.attrs {
		if a.name == name {
			return a, true
		}
	}
	return attr{}, false
}

// child returns the first child of that name in libvirt's own namespace, or nil.
func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	for _, c := range n.children {
		if c.name == name && c.space == "" {
			return c
		}
	}
	return nil
}

// all returns every child of that name in libvirt's own namespace.
func (n *node) all(name string) []*node {
	if n == nil {
		return nil
	}
	var out []*node
	for _, c := range n.children {
		if c.name == name && c.space == "" {
			out = append(out, c)
		}
	}
	return out
}

// path follows names downwards, nil when one is missing.
func (n *node) path(names ...string) *node {
	for _, name := range names {
		n = n.child(name)
	}
	return n
}

// value is the element's text without the space around it.
func (n *node) value() string {
	if n == nil {
		return ""
	}
	return strings.TrimSpace(n.text.String())
}

// parseTree takes text apart. It accepts one root element, no DOCTYPE, no
// processing instruction but the XML declaration, and bounded sizes.
func parseTree(text string) (*node, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(text), maxBytes)
	}
	b := builder{text: text, dec: xml.NewDecoder(strings.NewReader(text))}
	for {
		from := int(b.dec.InputOffset())
		tok, err := b.dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := b.add(tok, from, int(b.dec.InputOffset())); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrInvalid, 1+strings.Count(text[:from], "\n"), err)
		}
	}
	if b.root == nil {
		return nil, fmt.Errorf("%w: no element", ErrInvalid)
	}
	return b.root, nil
}

type builder struct {
	text  string
	dec   *xml.Decoder
	root  *node
	open  *node
	depth int
	count int
}

func (b *builder) add(tok xml.Token, from, to int) error {
	switch t := tok.(type) {
	case xml.StartElement:
		return b.start(t, from, to)
	case xml.EndElement:
		n := b.open
		n.endTag, n.end = from, to
		b.open, b.depth = n.parent, b.depth-1
	case xml.CharData:
		if b.open != nil {
			b.open.text.Write(t)
		} else if strings.TrimSpace(string(t)) != "" {
			return errors.New("text outside the root element")
		}
	case xml.Directive:
		return errors.New("a DOCTYPE is not accepted")
	case xml.ProcInst:
		if t.Target != "xml" || b.root != nil {
			return fmt.Errorf("processing instruction %q is not accepted", t.Target)
		}
	}
	return nil
}

func (b *builder) start(t xml.StartElement, from, to int) error {
	if b.root != nil && b.open == nil {
		return errors.New("more than one root element")
	}
	if b.depth++; b.depth > maxDepth {
		return fmt.Errorf("elements nested deeper than %d", maxDepth)
	}
	if b.count++; b.count > maxElements {
		return fmt.Errorf("more than %d elements", maxElements)
	}
	n := &node{space: t.Name.Space, name: t.Name.Local, start: from, tagEnd: to, parent: b.open}
	tag := b.text[from:to]
	n.selfClosed = strings.HasSuffix(tag, "/>")
	var err error
	if n.attrs, err = scanTag(tag, from); err != nil {
		return err
	}
	if len(n.attrs) != len(t.Attr) {
		return fmt.Errorf("attributes of <%s> cannot be told apart", n.name)
	}
	for i := range n.attrs {
		n.attrs[i].value = t.Attr[i].Value
	}
	if b.open != nil {
		b.open.children = append(b.open.children, n)
	} else {
		b.root = n
	}
	b.open = n
	return nil
}

// scanTag finds the attributes of a start tag that the decoder has accepted.
// The decoder gives their values but not their places.
func scanTag(tag string, base int) (attrs []attr, err error) {
	i := 1
	for i < len(tag) && !isSpace(tag[i]) && tag[i] != '>' && tag[i] != '/' {
		i++
	}
	seen := map[string]bool{}
	for {
		for i < len(tag) && isSpace(tag[i]) {
			i++
		}
		if i >= len(tag) || tag[i] == '>' || tag[i] == '/' {
			return attrs, nil
		}
		a := attr{start: base + i}
		from := i
		for i < len(tag) && tag[i] != '=' && !isSpace(tag[i]) {
			i++
		}
		a.name = tag[from:i]
		for i < len(tag) && tag[i] != '"' && tag[i] != '\'' {
			i++
		}
		if i >= len(tag) {
			return nil, fmt.Errorf("attribute %q has no value", a.name)
		}
		quote := tag[i]
		end := strings.IndexByte(tag[i+1:], quote)
		if end < 0 {
			return nil, fmt.Errorf("attribute %q is not closed", a.name)
		}
		a.valStart, a.valEnd = base+i+1, base+i+1+end
		if seen[a.name] {
			return nil, fmt.Errorf("attribute %q appears twice", a.name)
		}
		seen[a.name] = true
		attrs = append(attrs, a)
		i += end + 2
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
