// Package hostile makes images that must not become templates, and some that
// may, for tests: of the intake, of the agent as a whole, and for fuzzers to
// begin with. Everything is made by hand, byte by byte, because no tool makes
// such images; none is larger than half a mebibyte.
package hostile

import (
	"slices"

	"github.com/wherry-kvm/wherry/template/fault"
)

// Image is one file that poses as an image.
type Image struct {
	// Name says what is wrong with it, fit for a file name and for a test's.
	Name string
	// Format is what it is declared as.
	Format string
	Bytes  []byte
	// Says is what a refusal must tell of it.
	Says string
	// Code is the refusal's: fault.Image or fault.NotAnImage.
	Code string
}

// All gives the hostile images. victim is a file of the host: those that name
// a file name that one.
func All(victim string) []Image {
	return slices.Concat(Names(victim), marks(), tables(), headers(), polyglots(), foreigners(victim))
}

// Harmless gives images that are refused by nothing; Says and Code are empty.
func Harmless() []Image {
	boot := disk()
	gpt := disk()
	copy(gpt[512:], "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	return []Image{
		{Name: "qcow2", Format: "qcow2", Bytes: plain()},
		{Name: "qcow2-version-2", Format: "qcow2", Bytes: plain(func(q qcow2) { q.u32(4, 2); clear(q[72:112]) })},
		{Name: "qcow2-feature-names", Format: "qcow2", Bytes: plain(func(q qcow2) { q.extension(0x6803f857, make([]byte, 96)) })},
		{Name: "qcow2-unknown-extension", Format: "qcow2", Bytes: plain(func(q qcow2) { q.extension(0x12345678, []byte("/etc/passwd")) })},
		{Name: "qcow2-compatible-bits", Format: "qcow2", Bytes: plain(func(q qcow2) { q.u64(80, 1) })},
		{Name: "raw-zeros", Format: "raw", Bytes: make([]byte, 1<<16)},
		{Name: "raw-mbr", Format: "raw", Bytes: boot},
		{Name: "raw-gpt", Format: "raw", Bytes: gpt},
	}
}

// refused makes an image that breaks a rule.
func refused(name, says string, b []byte) Image {
	return Image{Name: name, Format: "qcow2", Bytes: b, Says: says, Code: fault.Image}
}

// disk is a small raw disk with a boot sector.
func disk() []byte {
	b := make([]byte, 1<<16)
	copy(b, "\xeb\x63\x90\x10\x8e\xd0\xbc\x00\xb0")
	b[510], b[511] = 0x55, 0xaa
	return b
}

// on puts bytes on a disk; a negative offset counts from its end.
func on(b []byte, at int, s string) []byte {
	if at < 0 {
		at += len(b)
	}
	copy(b[at:], s)
	return b
}
