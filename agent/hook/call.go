package hook

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// Operations of libvirt's hook that tell of an end. There are others: all are
// answered by doing nothing.
const (
	opStopped = "stopped"
	opRelease = "release"
	subEnd    = "end"
)

// reasonMigrated is libvirt's word for an instance that went to another host.
const reasonMigrated = "migrated"

// maxXML bounds what is read of a domain's XML, in bytes; it is tens of
// kilobytes. maxDepth bounds its nesting.
const (
	maxXML   = 4 << 20
	maxDepth = 100
)

// Call is what libvirt calls its hook with: name, operation, sub-operation and
// one more word, in which newer versions say why the instance ended.
type Call struct {
	Name, Operation, Sub, Extra string
}

// ParseArgs reads the arguments; missing ones are empty.
func ParseArgs(args []string) (c Call) {
	for i, into := range []*string{&c.Name, &c.Operation, &c.Sub, &c.Extra} {
		if i < len(args) {
			*into = args[i]
		}
	}
	if c.Extra == "-" {
		c.Extra = ""
	}
	return c
}

// Released tells whether an instance has ended and libvirt has let go of it,
// and it is this host that it ended on.
func (c Call) Released() bool {
	return c.Operation == opRelease && c.Sub == subEnd && c.Extra != reasonMigrated && c.Name != ""
}

// uuidOf reads the UUID from a domain's XML, as far as is needed for that.
func uuidOf(r io.Reader) (string, error) {
	d := xml.NewDecoder(io.LimitReader(r, maxXML))
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return "", errors.New("the XML is nested too deeply")
			}
			if depth != 2 || t.Name.Local != "uuid" {
				continue
			}
			var uuid string
			if err := d.DecodeElement(&uuid, &t); err != nil {
				return "", err
			}
			return strings.ToLower(strings.TrimSpace(uuid)), nil
		case xml.EndElement:
			depth--
		}
	}
}
