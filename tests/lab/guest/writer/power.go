package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
)

// powerKeys reports each press of the power button, which ACPI delivers as a key of an input device.
func powerKeys() <-chan struct{} {
	pressed := make(chan struct{})
	devices, _ := filepath.Glob("/dev/input/event*")
	for _, device := range devices {
		go readKeys(device, pressed)
	}
	return pressed
}

func readKeys(device string, pressed chan<- struct{}) {
	file, err := os.Open(device)
	if err != nil {
		return
	}
	defer file.Close()
	event := make([]byte, 24) // struct input_event: a time of 16 bytes, type, code, value
	for {
		if n, err := file.Read(event); err != nil || n != len(event) {
			return
		}
		if isPowerPress(event) {
			pressed <- struct{}{}
		}
	}
}

func isPowerPress(event []byte) bool {
	const evKey, keyPower, down = 1, 116, 1
	return binary.LittleEndian.Uint16(event[16:]) == evKey &&
		binary.LittleEndian.Uint16(event[18:]) == keyPower &&
		binary.LittleEndian.Uint32(event[20:]) == down
}

// powerOff returns only where it fails.
func powerOff() error {
	syscall.Sync()
	return syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// suspend goes to sleep, and comes back when it is woken.
func (g *guest) suspend(token string) {
	g.answer("suspend", token)
	g.out.drain()
	if err := os.WriteFile("/sys/power/state", []byte("mem"), 0); err != nil {
		g.out.line("IOERR suspend: %v", err)
		return
	}
	g.answer("awake", token)
}
