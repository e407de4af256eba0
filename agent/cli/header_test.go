package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A header may be secret, and every user of a host sees the arguments of its
// processes: one may be read from a file.
func TestHeaders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(file, []byte("Authorization: Bearer s3cret\r\n\nX-Other: b: c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		given []string
		want  map[string]string
		fails string
	}{
		"none":       {nil, nil, ""},
		"argument":   {[]string{"X-One: a"}, map[string]string{"X-One": "a"}, ""},
		"file":       {[]string{"@" + file, "X-One:a"}, map[string]string{"Authorization": "Bearer s3cret", "X-Other": "b: c", "X-One": "a"}, ""},
		"no header":  {[]string{"s3cret"}, nil, "Name: value"},
		"no file":    {[]string{"@" + file + "x"}, nil, "no such file"},
		"no regular": {[]string{"@/dev/zero"}, nil, "over 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := headerMap(tt.given)
			if tt.fails == "" && err != nil || tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("error %v; want %q", err, tt.fails)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %q tells the secret", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
