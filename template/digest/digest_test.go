package digest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/template/digest"
)

var names = []string{"md5", "sha1", "sha256", "sha512"}

// What the tools of the host say of the same bytes is what we say.
func TestSumsAreThoseOfCoreutils(t *testing.T) {
	content := bytes.Repeat([]byte("wherry"), 5000)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s := digest.New(names...)
	_, _ = s.Write(content[:7]) // never fails
	_, _ = s.Write(content[7:])
	for _, name := range names {
		out, err := exec.CommandContext(t.Context(), name+"sum", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		want := name + ":" + strings.Fields(string(out))[0]
		if got := s.Sum(name); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if err := digest.Check(want); err != nil {
			t.Errorf("%s %v", want, err)
		}
		if err := s.Match("", want); err != nil {
			t.Errorf("match: %v", err)
		}
		other := name + ":" + strings.Repeat("0", len(want)-len(name)-1)
		m, ok := errors.AsType[*digest.Mismatch](s.Match(want, other))
		if !ok || m.Want != other || m.Got != want {
			t.Errorf("mismatch %+v", m)
		}
	}
	// A checksum that nobody took proves nothing.
	if digest.For().Match(s.Sum("md5")) == nil || digest.New().Match("crc32:00000000") == nil {
		t.Error("an unknown checksum matches")
	}
	if s := digest.For("sha512:", "nonsense"); s.Sum("sha512") == "" || s.Sum("sha256") == "" || s.Sum("md5") != "" {
		t.Error("other algorithms than asked for")
	}
}

func TestCheck(t *testing.T) {
	for _, bad := range []string{
		"", "md5", "md5:", "d41d8cd98f00b204e9800998ecf8427e", "crc32:00000000", "md5:d41d8cd98f00b204e9800998ecf8427",
		"md5:d41d8cd98f00b204e9800998ecf8427g", "MD5:d41d8cd98f00b204e9800998ecf8427e", "md5:D41d8cd98f00b204e9800998ecf8427e",
		"sha256:d41d8cd98f00b204e9800998ecf8427e", "md5:d41d8cd98f00b204e9800998ecf8427e:",
	} {
		if digest.Check(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for i, name := range names {
		if digest.Strength(name) != i {
			t.Errorf("strength of %s is %d", name, digest.Strength(name))
		}
	}
	if digest.Strength("crc32") >= 0 {
		t.Error("crc32 has a strength")
	}
}

// Left anywhere and taken up by another process, the sums are the same.
func TestSaveAndRestore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.SliceOfN(rapid.Byte(), 0, 1000).Draw(t, "content")
		cut := rapid.IntRange(0, len(content)).Draw(t, "cut")
		first, second := digest.New(names...), digest.New(names...)
		_, _ = first.Write(content[:cut])
		states, err := first.Save()
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Restore(states); err != nil {
			t.Fatal(err)
		}
		_, _ = first.Write(content[cut:])
		_, _ = second.Write(content[cut:])
		for _, name := range names {
			if first.Sum(name) != second.Sum(name) {
				t.Errorf("%s, then %s", first.Sum(name), second.Sum(name))
			}
		}
	})
}

func TestRestoreOfOther(t *testing.T) {
	full, err := digest.New("sha256", "md5").Save()
	if err != nil {
		t.Fatal(err)
	}
	for name, states := range map[string]map[string][]byte{
		"none": nil, "less": {"sha256": full["sha256"]}, "others": {"sha256": full["sha256"], "sha1": full["md5"]},
		"mixed": {"sha256": full["md5"], "md5": full["sha256"]}, "cut": {"sha256": full["sha256"][:9], "md5": full["md5"]},
	} {
		s := digest.New("sha256", "md5")
		_, _ = s.Write([]byte("x"))
		if s.Restore(states) == nil || s.Sum("md5") != digest.New("md5").Sum("md5") || s.Sum("sha256") != digest.For().Sum("sha256") {
			t.Errorf("%s: restored as %s, %s", name, s.Sum("md5"), s.Sum("sha256"))
		}
	}
}
