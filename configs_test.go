package main_test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unit reads a systemd unit: section and key to every word of its values.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("configs", name))
	if err != nil {
		t.Fatal(err)
	}
	out, section := map[string][]string{}, ""
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
		}
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out[section+"."+key] = append(out[section+"."+key], strings.Fields(value)...)
		}
	}
	return out
}

// Systemd itself takes the units as they are. The program is not installed
// where tests run, so another one stands in for it.
func TestUnitsAreUnderstoodBySystemd(t *testing.T) {
	folder := t.TempDir()
	var files []string
	for _, name := range []string{"wherry.service", "wherry-shutdown.service"} {
		text, err := os.ReadFile(filepath.Join("configs", name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte("/usr/bin/wherry"), []byte("/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, files...)...)
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) != 0 {
		t.Errorf("systemd-analyze: %v: %s", err, out)
	}
}

// Instances go down with the host before what they need does, and with nothing
// else: not with the agent, nor with a package.
func TestInstancesGoDownOnlyWithTheHost(t *testing.T) {
	agent, end := unit(t, "wherry.service"), unit(t, "wherry-shutdown.service")
	for _, needed := range []string{"wherry.service", "libvirtd.service", "virtqemud.service", "network-online.target", "remote-fs.target",
		"libvirt-guests.service", "virt-guest-shutdown.target", "open-iscsi.service"} {
		if !slices.Contains(end["Unit.After"], needed) {
			t.Errorf("instances may go down after %s", needed)
		}
	}
	for _, u := range []map[string][]string{agent, end} {
		for _, tie := range []string{"Unit.PartOf", "Unit.BindsTo", "Unit.Requires", "Unit.Requisite", "Unit.Conflicts", "Unit.StopPropagatedFrom"} {
			if len(u[tie]) != 0 {
				t.Errorf("%s=%v: a stop of one would be a stop of the other", tie, u[tie])
			}
		}
	}
	if !slices.Equal(end["Unit.RefuseManualStop"], []string{"yes"}) || !slices.Equal(end["Service.RemainAfterExit"], []string{"yes"}) {
		t.Errorf("the unit can be stopped by hand, or is not there to be stopped: %v", end)
	}
	if len(end["Service.NotifyAccess"]) == 0 || end["Service.NotifyAccess"][0] == "none" {
		t.Error("systemd does not hear that more time is needed")
	}
	for key, words := range agent {
		if strings.HasPrefix(key, "Service.Exec") && slices.Contains(words, "shutdown") {
			t.Errorf("%s=%v stops instances with the agent", key, words)
		}
	}
}

// Libvirt lets nothing start whose hook fails, and reads what it prints.
func TestHookNeverFailsNorPrints(t *testing.T) {
	text, err := os.ReadFile("configs/hook")
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"absent": "", "failing": "echo told >&2; echo '<domain/>'; exit 1", "crashing": "kill -SEGV $$"} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			wherry, hook := filepath.Join(folder, "wherry"), filepath.Join(folder, "hook")
			if program != "" {
				if err := os.WriteFile(wherry, []byte("#!/bin/sh\n"+program+"\n"), 0o700); err != nil { //nolint:gosec // it is to be run
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(hook, bytes.ReplaceAll(text, []byte("/usr/bin/wherry"), []byte(wherry)), 0o700); err != nil { //nolint:gosec // likewise
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, hook, "vm", "prepare", "begin", "-").CombinedOutput()
			if err != nil || len(out) != 0 {
				t.Errorf("%v, %q", err, out)
			}
		})
	}
	if info, err := os.Stat("configs/hook"); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("the hook cannot be run: %v", err)
	}
}
