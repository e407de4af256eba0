package main

import (
	"os"
	"path/filepath"
	"strings"
)

// rescan takes up disks that appeared and drops those that went.
func (g *guest) rescan() {
	present := writableDisks("/sys/block")
	for name := range g.disks {
		if !present[name] {
			g.disks[name].close()
			delete(g.disks, name)
			g.out.line("gone %s", name)
		}
	}
	for name := range present {
		if g.disks[name] == nil {
			g.add(name)
		}
	}
}

func (g *guest) add(name string) {
	device, size, err := openDevice("/dev/" + name)
	if err != nil {
		g.out.line("IOERR %s open: %v", name, err)
		return
	}
	d, err := newDisk(device, name, size)
	if err != nil {
		_ = device.Close()
		g.out.line("IOERR %s open: %v", name, err)
		return
	}
	g.disks[name] = d
	g.out.line("disk %s size=%d next=%d", name, size, d.next)
	if d.clean != nil {
		g.out.line("clean %s %s", name, d.clean.Mark)
	}
	if d.broken != "" {
		g.out.line("IOERR %s content: %s", name, d.broken)
	}
}

// writableDisks reads names from a folder laid out like /sys/block.
func writableDisks(folder string) map[string]bool {
	entries, _ := os.ReadDir(folder)
	disks := map[string]bool{}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, "vd") && !strings.HasPrefix(name, "sd") {
			continue
		}
		if attribute(folder, name, "ro") == "0" && attribute(folder, name, "size") != "0" {
			disks[name] = true
		}
	}
	return disks
}

func attribute(folder, disk, name string) string {
	content, _ := os.ReadFile(filepath.Join(folder, disk, name))
	return strings.TrimSpace(string(content))
}
