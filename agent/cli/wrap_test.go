package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrapLastColumn(t *testing.T) {
	const table = `ID      STATE   MESSAGE
rocky9  failed  the host images.example.invalid cannot be resolved: no such host
debian  ready
`
	for name, test := range map[string]struct {
		width int
		want  string
	}{
		"no terminal": {0, table},
		"wide enough": {100, table},
		"wrapped": {50, `ID      STATE   MESSAGE
rocky9  failed  the host images.example.invalid
                cannot be resolved: no such host
debian  ready
`},
		"no room beside the row": {40, `ID      STATE   MESSAGE
rocky9  failed
    the host images.example.invalid
    cannot be resolved: no such host
debian  ready
`},
		"narrower than any word": {5, `ID      STATE   MESSAGE
rocky9  failed
    the
    host
    images.example.invalid
    cannot
    be
    resolved:
    no
    such
    host
debian  ready
`},
	} {
		if diff := cmp.Diff(test.want, string(wrapLastColumn([]byte(table), test.width))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, odd := range []string{"", "ONE\nword\n", "A  B\n"} {
		if got := string(wrapLastColumn([]byte(odd), 80)); got != odd {
			t.Errorf("%q became %q", odd, got)
		}
	}
}
