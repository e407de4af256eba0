package config_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/wherry-kvm/wherry/agent/config"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "4096B": 4096, " 7 MiB ": 7 << 20,
		"1K": 1 << 10, "200MiB": 200 << 20, "200mib": 200 << 20, "10G": 10 << 30, "3TiB": 3 << 40,
		"1kB": 1000, "10GB": 10_000_000_000,
		"1.5GiB": 3 << 29, "0.5K": 512,
		"9223372036854775807": math.MaxInt64,
	} {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestParseSizeRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "GiB", "-1", "+1", "1e3", "0x10", "10 apples", "1.2.3", "0.1", "1.0001K", ".",
		"9223372036854775808", "8388608TiB", "99999999999999999999G", "9000000000.5GiB", "NaN", "Inf", "١",
	} {
		if got, err := config.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB",
		1<<20 - 1: "1.0 MiB", // not 1024.0 KiB
		200 << 20: "200.0 MiB", 10 << 30: "10.0 GiB", 2 << 40: "2.0 TiB",
		math.MaxInt64: "8.0 EiB", -1536: "-1.5 KiB",
	} {
		if got := config.FormatSize(bytes); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", bytes, got, want)
		}
	}
}

// What a person reads, typed back, is the size within the rounding shown.
func TestSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.Int64Range(0, 1<<50).Draw(t, "bytes")
		got, err := config.ParseSize(config.FormatSize(bytes))
		if err != nil {
			t.Skip("a rounded size need not be a whole number of bytes")
		}
		if diff := float64(got) - float64(bytes); math.Abs(diff) > 0.051*float64(bytes) {
			t.Fatalf("%d reads %q, which is %d", bytes, config.FormatSize(bytes), got)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"10GiB", "1.5K", "-3", "99999999999999999999T", "0.000001T"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := config.ParseSize(s); err == nil && n < 0 {
			t.Fatalf("ParseSize(%q) = %d", s, n)
		}
	})
}
