package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// units are the suffixes of a size. A bare letter is binary, as for qemu-img
// and virsh; the decimal ones must say so with a B.
var units = map[string]int64{
	"": 1, "B": 1,
	"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
	"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
	"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

// ParseSize reads a size in bytes: 4096, 200MiB, 1.5GiB, 10GB. Upper and lower
// case are alike. A fraction of a byte, a negative size and one that does not
// fit are errors.
func ParseSize(s string) (int64, error) {
	text := strings.TrimSpace(s)
	end := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(text)
	}
	number, suffix := text[:end], strings.ToUpper(strings.TrimSpace(text[end:]))
	unit, known := units[suffix]
	if !known || number == "" {
		return 0, fmt.Errorf("%q is not a size such as 4096, 200MiB or 10GiB", s)
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil {
		if whole > math.MaxInt64/unit {
			return 0, fmt.Errorf("%q is too large a size", s)
		}
		return whole * unit, nil
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size such as 4096, 200MiB or 10GiB", s)
	}
	bytes := value * float64(unit)
	if bytes >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large a size", s)
	}
	if bytes != math.Trunc(bytes) {
		return 0, fmt.Errorf("%q is not a whole number of bytes", s)
	}
	return int64(bytes), nil
}

// FormatSize writes a size for a reader, in binary units: 0 B, 1.5 GiB.
func FormatSize(bytes int64) string {
	if bytes < 1<<10 && bytes > -1<<10 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, names := float64(bytes), "KMGTPE"
	for i, name := range names {
		value /= 1 << 10
		// One decimal is shown, so 1023.96 would read 1024.0.
		if math.Abs(value) < 1023.95 || i == len(names)-1 {
			return fmt.Sprintf("%.1f %ciB", value, name)
		}
	}
	return "" // not reached: the last name always returns
}
