package harness

import (
	"strconv"
	"strings"
)

// Console is what a guest printed on one host, in order. Of a guest that migrated, each host holds a part.
type Console []string

// parseConsole splits a log into lines. A last line without an end is not one yet.
func parseConsole(log string) Console {
	lines := strings.Split(log, "\n")
	lines = lines[:len(lines)-1]
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	return lines
}

// Boots are the ids of the boots begun, in order.
func (c Console) Boots() []string {
	var boots []string
	for _, line := range c {
		if id, ok := strings.CutPrefix(line, "BOOT "); ok {
			boots = append(boots, id)
		}
	}
	return boots
}

// LastBlock is the number of the newest block that was durable on the disk, -1 where there is none.
func (c Console) LastBlock(disk string) int64 {
	for i := len(c) - 1; i >= 0; i-- {
		if number, ok := strings.CutPrefix(c[i], "blk "+disk+" "); ok {
			if n, err := strconv.ParseInt(number, 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}

// Blocks are the numbers of all blocks of the disk that were printed as durable, in order.
func (c Console) Blocks(disk string) []int64 {
	var numbers []int64
	for _, line := range c {
		if number, ok := strings.CutPrefix(line, "blk "+disk+" "); ok {
			if n, err := strconv.ParseInt(number, 10, 64); err == nil {
				numbers = append(numbers, n)
			}
		}
	}
	return numbers
}

// Complaints are the lines by which the guest reports that something is wrong.
func (c Console) Complaints() []string {
	var complaints []string
	for _, line := range c {
		if strings.Contains(line, "IOERR ") || strings.Contains(line, " BAD ") || strings.Contains(line, "Kernel panic") ||
			strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			complaints = append(complaints, line)
		}
	}
	return complaints
}

// Has reports whether the guest printed this very line.
func (c Console) Has(line string) bool {
	for _, l := range c {
		if l == line {
			return true
		}
	}
	return false
}

// refused reports whether the guest could not obey the order that carried the token.
func (c Console) refused(token string) bool {
	for _, line := range c {
		if strings.HasPrefix(line, "dirty refused ") && strings.HasSuffix(line, " "+token) {
			return true
		}
	}
	return false
}

// DiskReport is what the guest found on one disk when it was told to verify.
type DiskReport struct {
	Disk     string
	OK       bool
	Blocks   int64  // blocks of data verified
	Last     int64  // number of the newest, -1 where there is none
	Template int64  // blocks of the template verified
	Label    string // of the template, "-" where the disk has none
	Seed     string
	Detail   string // the guest's own words
}

// reports returns what the guest answered to `verify token`, and false where it has not answered in full.
func (c Console) reports(token string) ([]DiskReport, bool) {
	prefix := "verify " + token + " "
	var reports []DiskReport
	for _, line := range c {
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok {
			continue
		}
		if count, ok := strings.CutPrefix(rest, "done "); ok {
			return reports, count == strconv.Itoa(len(reports))
		}
		reports = append(reports, parseReport(rest))
	}
	return nil, false
}

func parseReport(text string) DiskReport {
	disk, detail, _ := strings.Cut(text, " ")
	report := DiskReport{Disk: disk, Detail: detail, Last: -1}
	words := strings.Fields(detail)
	report.OK = len(words) > 0 && words[0] == "ok"
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		number, _ := strconv.ParseInt(value, 10, 64)
		switch key {
		case "blocks":
			report.Blocks = number
		case "last":
			report.Last = number
		case "template":
			report.Template = number
		case "label":
			report.Label = value
		case "seed":
			report.Seed = value
		}
	}
	return report
}
