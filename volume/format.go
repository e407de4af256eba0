package volume

import "fmt"

// Format is how a volume's bytes are laid out, in QEMU's own words.
type Format string

// The two formats Wherry handles. QEMU knows more; a layer in any other is
// refused by name rather than handed on unread.
const (
	FormatQcow2 Format = "qcow2"
	FormatRaw   Format = "raw"
)

// ParseFormat accepts exactly the names of the supported formats.
// Anything else, the empty string included, is ErrFormatUnsupported.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); f.known() {
		return f, nil
	}
	return "", fmt.Errorf("%w: %q", ErrFormatUnsupported, s)
}

func (f Format) known() bool { return f == FormatQcow2 || f == FormatRaw }
