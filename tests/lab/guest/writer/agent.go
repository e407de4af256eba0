package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

const agentName = "org.qemu.guest_agent.0"

// startAgent speaks as much of QEMU's guest agent protocol as libvirt needs to have a guest shut down, where the machine
// has a port for it. The channel tells that it was told to.
func startAgent(manner string) <-chan struct{} {
	told := make(chan struct{})
	if path := agentPort("/sys/class/virtio-ports", "/dev"); path != "" {
		go serveAgent(path, manner, told)
	}
	return told
}

// agentPort finds the port by its name. There is no udev to do so.
func agentPort(class, dev string) string {
	names, _ := filepath.Glob(filepath.Join(class, "*", "name"))
	for _, path := range names {
		if content, _ := os.ReadFile(path); string(content) == agentName+"\n" {
			return filepath.Join(dev, filepath.Base(filepath.Dir(path)))
		}
	}
	return ""
}

// serveAgent goes on for ever: a host that is not connected reads as the end of the file.
func serveAgent(path, manner string, told chan<- struct{}) {
	port, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	for {
		for scanner := bufio.NewScanner(port); scanner.Scan(); {
			answer, shutdown := obey(scanner.Bytes(), manner)
			if answer != "" {
				_, _ = port.WriteString(answer + "\n")
			}
			if shutdown {
				told <- struct{}{}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// obey answers one command (QEMU's docs/interop/qemu-ga-ref): nothing where the guest is to shut down.
func obey(line []byte, manner string) (answer string, shutdown bool) {
	var command struct {
		Execute   string
		Arguments struct{ ID json.Number }
	}
	for len(line) > 0 && line[0] == 0xff { // the delimiter of guest-sync-delimited
		line = line[1:]
	}
	if manner == "hang" || json.Unmarshal(line, &command) != nil {
		return "", false
	}
	switch command.Execute {
	case "guest-sync":
		return `{"return": ` + command.Arguments.ID.String() + `}`, false
	case "guest-sync-delimited":
		return "\xff" + `{"return": ` + command.Arguments.ID.String() + `}`, false
	case "guest-ping":
		return `{"return": {}}`, false
	case "guest-shutdown":
		return "", manner != "mute"
	}
	return `{"error": {"class": "CommandNotFound", "desc": "not here"}}`, false
}
