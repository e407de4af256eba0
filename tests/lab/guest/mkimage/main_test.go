package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wherry-kvm/wherry/tests/lab/guest/block"
)

func TestMake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := run([]string{"--label", "rocky9", "--seed", "7", "--size", "64K", "--data", "8K", path}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil || len(content) != 64<<10 {
		t.Fatalf("got %d bytes, %v", len(content), err)
	}
	for seq := range uint64(2) {
		got, err := block.Decode(content[seq*block.Size:][:block.Size])
		want := block.Block{Kind: block.Template, Seq: seq, Total: 2, Name: "rocky9", Mark: "7"}
		if err != nil || got != want {
			t.Errorf("block %d: got %+v, %v; want %+v", seq, got, err, want)
		}
	}
	if err := run([]string{path}); err == nil {
		t.Error("an image that exists was overwritten")
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"512": 512, "4K": 4 << 10, "64M": 64 << 20, "1G": 1 << 30} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1T", "12MK", "9999999999999G"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
}
