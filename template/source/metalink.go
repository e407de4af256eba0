package source

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/template/digest"
	"github.com/wherry-kvm/wherry/template/fault"
)

// maxMetalink bounds the document in bytes, maxMirrors what is taken of it.
const (
	maxMetalink = 1 << 20
	maxMirrors  = 32
)

// metalink is what a Metalink says of one file.
type metalink struct {
	size    int64 // -1 where it is not said
	hashes  []string
	mirrors []mirror
}

// mirror is one place of the file. A lower priority is better.
type mirror struct {
	url      string
	priority int
}

// plain is 1 where anybody on the way can read and change what is sent.
func (m mirror) plain() int {
	if strings.HasPrefix(strings.ToLower(m.url), "https:") {
		return 0
	}
	return 1
}

// isMetalinkName tells by the name whether a URL is of a Metalink.
func isMetalinkName(p string) bool {
	return slices.Contains([]string{".meta4", ".metalink"}, strings.ToLower(path.Ext(p)))
}

// isMetalinkType tells it by what the server calls the content.
func isMetalinkType(mediaType string) bool {
	return mediaType == "application/metalink4+xml" || mediaType == "application/metalink+xml"
}

// xmlMetalink is version 4 (RFC 5854) and the older version 3 at once: they
// differ in where things stand.
type xmlMetalink struct {
	XMLName xml.Name  `xml:"metalink"`
	Files   []xmlFile `xml:"file"`
	Older   []xmlFile `xml:"files>file"`
}

type xmlFile struct {
	Name   string    `xml:"name,attr"`
	Size   string    `xml:"size"`
	Hashes []xmlHash `xml:"hash"`
	URLs   []xmlURL  `xml:"url"`

	OlderHashes []xmlHash `xml:"verification>hash"`
	OlderURLs   []xmlURL  `xml:"resources>url"`
}

type xmlHash struct {
	Type  string `xml:"type,attr"`
	Value string `xml:",chardata"`
}

type xmlURL struct {
	Priority   string `xml:"priority,attr"`   // version 4: 1 is best
	Preference string `xml:"preference,attr"` // version 3: 100 is best
	Value      string `xml:",chardata"`
}

// parseMetalink reads a document that describes one file, or one of the given
// name among others. Its error is a fault.
func parseMetalink(doc []byte, name string) (metalink, error) {
	var x xmlMetalink
	d := xml.NewDecoder(bytes.NewReader(doc))
	if err := d.Decode(&x); err != nil {
		return metalink{}, fault.New(fault.Protocol, "the Metalink is not understood: %w", err)
	}
	if err := onlyElement(d); err != nil {
		return metalink{}, err
	}
	files := slices.Concat(x.Files, x.Older)
	if len(files) > 1 {
		files = slices.DeleteFunc(files, func(f xmlFile) bool { return f.Name != name })
	}
	if len(files) != 1 {
		return metalink{}, fault.New(fault.Protocol, "the Metalink describes no single file, nor one of the name %q", name)
	}
	return files[0].read()
}

// onlyElement sees that nothing but space and comments follows.
func onlyElement(d *xml.Decoder) error {
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.New(fault.Protocol, "the Metalink is not understood: %w", err)
		}
		if _, isElement := token.(xml.StartElement); isElement {
			return fault.New(fault.Protocol, "the Metalink is two documents")
		}
	}
}

func (f xmlFile) read() (metalink, error) {
	m := metalink{size: -1}
	if s := strings.TrimSpace(f.Size); s != "" {
		size, ok := number(s)
		if !ok {
			return m, fault.New(fault.Protocol, "the Metalink's size %q is no number", fault.Clean(s, 64))
		}
		m.size = size
	}
	var err error
	if m.hashes, err = checksums(slices.Concat(f.Hashes, f.OlderHashes)); err != nil {
		return m, err
	}
	for _, u := range slices.Concat(f.URLs, f.OlderURLs) {
		m.mirrors = append(m.mirrors, mirror{strings.TrimSpace(u.Value), u.priority()})
	}
	// Among equals https first, and then the document's own order.
	slices.SortStableFunc(m.mirrors, func(a, b mirror) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.plain(), b.plain()))
	})
	return m, nil
}

// priority makes one order of both versions'. What is not said comes last
// (RFC 5854, 4.2.16.1: 999999).
func (u xmlURL) priority() int {
	const last = 999999
	if n, ok := number(u.Priority); ok && n >= 1 && n <= last {
		return int(n)
	}
	if n, ok := number(u.Preference); ok && n <= 100 {
		return 101 - int(n)
	}
	return last
}

// checksums gives the hashes that are known here, strongest first. Others are
// left out; a malformed or contradicting one is a fault, because leaving it
// out would make the check weaker than the document means it.
func checksums(all []xmlHash) ([]string, error) {
	found := map[int]string{} // by strength
	for _, h := range all {
		// "sha-256" in version 4, "sha256" in version 3.
		name := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(h.Type)), "-", "")
		strength := digest.Strength(name)
		if strength < 0 {
			continue
		}
		sum := name + ":" + strings.ToLower(strings.TrimSpace(h.Value))
		if digest.Check(sum) != nil {
			return nil, fault.New(fault.Protocol, "the Metalink's hash of the type %s is malformed", name)
		}
		if other, twice := found[strength]; twice && other != sum {
			return nil, fault.New(fault.Protocol, "the Metalink has two different hashes of the type %s", name)
		}
		found[strength] = sum
	}
	var out []string
	for _, strength := range slices.Backward(slices.Sorted(maps.Keys(found))) {
		out = append(out, found[strength])
	}
	return out, nil
}
