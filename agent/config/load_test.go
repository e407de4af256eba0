package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/agent/config"
)

// write makes a configuration file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wherry.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, text string, set ...string) (config.Config, error) {
	t.Helper()
	return config.Load(config.Options{File: write(t, text), Set: set})
}

func mustLoad(t *testing.T, text string, set ...string) config.Config {
	t.Helper()
	c, err := load(t, text, set...)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

func TestNothingConfigured(t *testing.T) {
	c := mustLoad(t, "")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Host.Name = hostname
	want.Migration.LibvirtURI = "qemu+tls://" + hostname + "/system"
	want.Listen.TCP = ""
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("configuration without a file (-want +got):\n%s", diff)
	}
}

// The shipped file names every key and changes none.
func TestShippedFileIsTheDefault(t *testing.T) {
	const shipped = "../../configs/wherry.yaml"
	c, err := config.Load(config.Options{File: shipped})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(mustLoad(t, ""), c); diff != "" {
		t.Errorf("configs/wherry.yaml differs from the defaults (-default +file):\n%s", diff)
	}
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range config.Keys() {
		name := key[strings.LastIndexByte(key, '.')+1:]
		if !strings.Contains("\n"+string(text), "\n"+name+":") && !strings.Contains(string(text), "\n  "+name+":") {
			t.Errorf("configs/wherry.yaml does not show %s", key)
		}
	}
}

const everything = `
listen: {socket: /s/agent.sock, tcp: "192.0.2.1:9000", metrics: "", insecure: true}
tls: {ca: /t/ca, cert: /t/cert, key: /t/key}
state_dir: /state
host: {name: a, start_again: true}
hypervisor: {uri: "qemu+unix:///system"}
migration: {libvirt_uri: "qemu+tcp://a/system", address: 192.0.2.1, tls: true, timeout: 1h, stall_timeout: 5s, max_downtime: 2s, patience: 3s, last_patience: 7s, max_outgoing: 3, max_incoming: 4, bandwidth: 200MiB, host_bandwidth: 1GiB, lease: 10s, decision_timeout: 30s}
peers: ["https://b:8470"]
pools: [{name: Fast-A, identity: San/LUN}]
templates: {pool: t, allow_addresses: [10.0.0.0/8, "fd00::/8"], file_folders: [/f], ca: /t/images, max_virtual_size: 1073741824, max_size: 5GiB, idle_timeout: 3m, retry_first: 2s, retry_max: 4s, downloads: 7, senders: 8, bandwidth: 3MiB, check_interval: 5s, unused_age: 720h, min_free: 10, keep_at_least: 2h}
targets: {file_folders: [/g]}
powerflex: {root: /p, rescan: [/bin/rescan, now], timeout: 1s}
iscsi: {timeout: 2s}
operations: {keep: 1h}
log: {level: debug, format: json}
`

func everythingWant() config.Config {
	return config.Config{
		Listen:     config.Listen{Socket: "/s/agent.sock", TCP: "192.0.2.1:9000", Insecure: true},
		TLS:        config.TLS{CA: "/t/ca", Cert: "/t/cert", Key: "/t/key"},
		StateDir:   "/state",
		Host:       config.Host{Name: "a", StartAgain: true},
		Hypervisor: config.Hypervisor{URI: "qemu+unix:///system"},
		Migration: config.Migration{LibvirtURI: "qemu+tcp://a/system", Address: "192.0.2.1", TLS: true, Timeout: time.Hour,
			StallTimeout: 5 * time.Second, MaxDowntime: 2 * time.Second, Patience: 3 * time.Second, LastPatience: 7 * time.Second, MaxOutgoing: 3, MaxIncoming: 4, Bandwidth: 200 << 20, HostBandwidth: 1 << 30, Lease: 10 * time.Second, DecisionTimeout: 30 * time.Second},
		Peers: []string{"https://b:8470"},
		Pools: []config.Pool{{Name: "Fast-A", Identity: "San/LUN"}},
		Templates: config.Templates{Pool: "t", AllowAddresses: []string{"10.0.0.0/8", "fd00::/8"}, FileFolders: []string{"/f"},
			CA: "/t/images", MaxVirtualSize: 1 << 30, MaxSize: 5 << 30, IdleTimeout: 3 * time.Minute,
			RetryFirst: 2 * time.Second, RetryMax: 4 * time.Second, Downloads: 7, Senders: 8, Bandwidth: 3 << 20,
			CheckInterval: 5 * time.Second, UnusedAge: 30 * 24 * time.Hour, MinFree: 10, KeepAtLeast: 2 * time.Hour},
		Targets:    config.Targets{FileFolders: []string{"/g"}},
		PowerFlex:  config.PowerFlex{Root: "/p", Rescan: []string{"/bin/rescan", "now"}, Timeout: time.Second},
		ISCSI:      config.ISCSI{Timeout: 2 * time.Second},
		Operations: config.Operations{Keep: time.Hour},
		Log:        config.Log{Level: "debug", Format: "json"},
	}
}

// No key may hold its default here, or the tests below would not see it ignored.
func TestEverythingDiffersFromTheDefault(t *testing.T) {
	defaults := mustLoad(t, "").Settings()
	for i, s := range mustLoad(t, everything).Settings() {
		if s == defaults[i] {
			t.Errorf("%s: the test sets it to its default, %q", s.Key, s.Text)
		}
	}
}

func TestEveryKeyFromTheFile(t *testing.T) {
	if diff := cmp.Diff(everythingWant(), mustLoad(t, everything)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryKeyFromTheEnvironment(t *testing.T) {
	for _, s := range everythingWant().Settings() {
		t.Setenv(config.EnvName(s.Key), s.Text)
	}
	if diff := cmp.Diff(everythingWant(), mustLoad(t, "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryKeyFromFlags(t *testing.T) {
	var set []string
	for _, s := range everythingWant().Settings() {
		set = append(set, s.Key+"="+s.Text)
	}
	if diff := cmp.Diff(everythingWant(), mustLoad(t, "", set...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	const file = "log: {level: warn}\nhost: {name: file}\nstate_dir: /file\n"
	t.Setenv("WHERRY_HOST_NAME", "environment")
	t.Setenv("WHERRY_STATE_DIR", "/environment")
	c := mustLoad(t, file, "state_dir=/flag")
	if c.Log.Level != "warn" || c.Host.Name != "environment" || c.StateDir != "/flag" {
		t.Errorf("got %q, %q, %q; want warn, environment, /flag", c.Log.Level, c.Host.Name, c.StateDir)
	}
	if c.Migration.LibvirtURI != "qemu+tls://environment/system" {
		t.Errorf("the libvirt URI %q does not follow the host's name", c.Migration.LibvirtURI)
	}
}

func TestEmptyEnvironmentIsAValue(t *testing.T) {
	t.Setenv("WHERRY_LISTEN_METRICS", "")
	if c := mustLoad(t, ""); c.Listen.Metrics != "" {
		t.Errorf("listen.metrics = %q, want it off", c.Listen.Metrics)
	}
}

func TestTCPFollowsTheCertificates(t *testing.T) {
	const certificates = "tls: {ca: /t/ca, cert: /t/cert, key: /t/key}\n"
	for text, want := range map[string]string{
		"":                                     "",
		certificates:                           config.DefaultTCP,
		certificates + "listen: {tcp: \"\"}\n": "",
		"listen: {tcp: \"127.0.0.1:1\"}\n":     "127.0.0.1:1",
	} {
		if c := mustLoad(t, text); c.Listen.TCP != want {
			t.Errorf("listen.tcp = %q, want %q, with\n%s", c.Listen.TCP, want, text)
		}
	}
}

func TestSectionsMayBeEmpty(t *testing.T) {
	mustLoad(t, "listen:\n  # tcp: :8470\npeers:\nhost: {}\n")
}

func TestFiles(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	if _, err := config.Load(config.Options{File: missing}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a named file that is missing: %v, want an error naming it", err)
	}
	t.Setenv("WHERRY_CONFIG", missing)
	if _, err := config.Load(config.Options{}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file named by the environment that is missing: %v, want an error naming it", err)
	}
	t.Setenv("WHERRY_CONFIG", write(t, "host: {name: from-environment}"))
	if c, err := config.Load(config.Options{}); err != nil || c.Host.Name != "from-environment" {
		t.Errorf("host.name = %q, %v; want the one of the file in WHERRY_CONFIG", c.Host.Name, err)
	}
}

func TestEveryFieldHasAKey(t *testing.T) {
	for _, k := range config.Keys() {
		if k == "" || strings.HasSuffix(k, ".") {
			t.Errorf("a field has no name, after %q", k)
		}
	}
}
