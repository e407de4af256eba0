// Package digest takes the checksums of images: several at once, in one pass
// that can be left and taken up again.
package digest

import (
	"crypto/md5"  //nolint:gosec // registries still carry it; SHA-256 names the file
	"crypto/sha1" //nolint:gosec // the same
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
)

// SHA256 is the algorithm that names published files.
const SHA256 = "sha256"

// algorithms from the weakest to the strongest.
var algorithms = []struct {
	name string
	make func() hash.Hash
}{{"md5", md5.New}, {"sha1", sha1.New}, {SHA256, sha256.New}, {"sha512", sha512.New}}

// Strength orders algorithms; -1 for an unknown one.
func Strength(algorithm string) int {
	for i, a := range algorithms {
		if a.name == algorithm {
			return i
		}
	}
	return -1
}

// Split gives the algorithm of a checksum, "ALGORITHM:HEX", and its digits.
func Split(sum string) (algorithm, digits string) {
	algorithm, digits, _ = strings.Cut(sum, ":")
	return algorithm, digits
}

// Check says what is wrong with a checksum; nil if it is well formed, in lower
// case.
func Check(sum string) error {
	name, digits := Split(sum)
	i := Strength(name)
	if i < 0 {
		return errors.New("is not md5:, sha1:, sha256: or sha512: and hex digits")
	}
	want := 2 * algorithms[i].make().Size()
	if _, err := hex.DecodeString(digits); err != nil || len(digits) != want || digits != strings.ToLower(digits) {
		return fmt.Errorf("is not %q and %d hex digits", name+":", want)
	}
	return nil
}

// Sums are checksums of bytes written one after another. Not for use by
// several goroutines at once.
type Sums struct{ hashes map[string]hash.Hash }

// New takes the given algorithms; unknown and empty ones are left out.
func New(names ...string) *Sums {
	s := &Sums{map[string]hash.Hash{}}
	for _, a := range algorithms {
		if slices.Contains(names, a.name) {
			s.hashes[a.name] = a.make()
		}
	}
	return s
}

// For takes SHA-256 and the algorithm of each given checksum.
func For(sums ...string) *Sums {
	names := []string{SHA256}
	for _, sum := range sums {
		name, _ := Split(sum)
		names = append(names, name)
	}
	return New(names...)
}

// Write adds bytes; it never fails.
func (s *Sums) Write(b []byte) (int, error) {
	for h := range maps.Values(s.hashes) {
		h.Write(b)
	}
	return len(b), nil
}

// Reset begins again.
func (s *Sums) Reset() {
	for h := range maps.Values(s.hashes) {
		h.Reset()
	}
}

// Sum gives "ALGORITHM:HEX", or "" for an algorithm that is not taken.
func (s *Sums) Sum(algorithm string) string {
	h, ok := s.hashes[algorithm]
	if !ok {
		return ""
	}
	return algorithm + ":" + hex.EncodeToString(h.Sum(nil))
}

// Mismatch is a checksum that differs.
type Mismatch struct{ Want, Got string }

func (m *Mismatch) Error() string {
	return fmt.Sprintf("the checksum differs: expected %s, got %s", m.Want, m.Got)
}

// Match compares with each of the given checksums, of which empty ones say
// nothing. The error is a *Mismatch. A checksum whose algorithm is not taken
// does not match: nothing is accepted unverified.
func (s *Sums) Match(want ...string) error {
	for _, w := range want {
		name, _ := Split(w)
		got := s.Sum(name)
		if w != "" && got != w {
			return &Mismatch{Want: w, Got: got}
		}
	}
	return nil
}

// Save gives the inner states by algorithm, for [Sums.Restore].
func (s *Sums) Save() (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, h := range s.hashes {
		m, ok := h.(encoding.BinaryMarshaler)
		if !ok {
			return nil, fmt.Errorf("the state of %s cannot be saved", name)
		}
		state, err := m.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("state of %s: %w", name, err)
		}
		out[name] = state
	}
	return out, nil
}

// Restore takes up where Save was called. It fails, and leaves the sums at the
// beginning, unless states has exactly the algorithms that are taken, whole.
func (s *Sums) Restore(states map[string][]byte) error {
	s.Reset()
	if len(states) != len(s.hashes) {
		return fmt.Errorf("states of %d checksums, not of %d", len(states), len(s.hashes))
	}
	for name, h := range s.hashes {
		u, ok := h.(encoding.BinaryUnmarshaler)
		if !ok {
			return fmt.Errorf("the state of %s cannot be restored", name)
		}
		if err := u.UnmarshalBinary(states[name]); err != nil {
			s.Reset()
			return fmt.Errorf("state of %s: %w", name, err)
		}
	}
	return nil
}
