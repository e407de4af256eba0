package process

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Found is a QEMU process that libvirt has started, as its command line has it.
type Found struct {
	PID        int
	Name, UUID string
	// Incoming: it was started to receive a migration. It stays true once the
	// instance has arrived.
	Incoming bool
}

// All lists the processes that libvirt has started for domains of this host,
// without asking libvirt. Each is what its command line says: before anything
// is done to it, Find pins and proves it.
func (f Finder) All() ([]Found, error) {
	entries, err := os.ReadDir(cmp.Or(f.Proc, procFolder))
	if err != nil {
		return nil, fmt.Errorf("list of processes: %w", err)
	}
	var out []Found
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, err := readSome(filepath.Join(cmp.Or(f.Proc, procFolder), e.Name(), "cmdline"), maxCommand)
		if err != nil {
			continue // ended meanwhile
		}
		if found, ok := parseCommand(command); ok {
			found.PID = pid
			out = append(out, found)
		}
	}
	return out, nil
}

// parseCommand reads a command line as libvirt writes it: "-name" with "guest="
// and options after a comma, "-uuid", and "-incoming" for a destination. A
// comma in a name is written twice.
func parseCommand(command []byte) (out Found, ok bool) {
	args := bytes.Split(bytes.TrimSuffix(command, []byte{0}), []byte{0})
	for i := 1; i < len(args); i++ {
		value := ""
		if i+1 < len(args) {
			value = string(args[i+1])
		}
		switch string(args[i]) {
		case "-name":
			out.Name, _ = strings.CutPrefix(guestName(value), "guest=")
		case "-uuid":
			out.UUID = strings.ToLower(value)
		case "-incoming":
			out.Incoming = true
		}
	}
	return out, out.Name != "" && out.UUID != ""
}

// guestName gives the first option of -name, "" where that is not the guest's.
func guestName(value string) string {
	if !strings.HasPrefix(value, "guest=") {
		return ""
	}
	var name strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == ',' {
			if i+1 == len(value) || value[i+1] != ',' {
				break
			}
			i++
		}
		name.WriteByte(value[i])
	}
	return name.String()
}
