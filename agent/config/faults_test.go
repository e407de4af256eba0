package config_test

import (
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/agent/config"
)

// Every fault names its key.
func TestFaults(t *testing.T) {
	const certificates = "tls: {ca: /t/ca, cert: /t/cert, key: /t/key}\n"
	for _, test := range []struct {
		name, file string
		want       []string
	}{
		{"typo in a section", "listen: {tpc: ':1'}", []string{`"listen.tpc"`, `did you mean "listen.tcp"?`}},
		{"typo at the top", "state-dir: /x", []string{`"state-dir"`, `"state_dir"`}},
		{"key without its section", "lease: 60s", []string{`"lease"`, `"migration.lease"`}},
		{"key far from any", "migration: {colour: red}", []string{`unknown key "migration.colour"`}},
		{"section is a value", "listen: off", []string{"listen"}},
		{"value is a section", "state_dir: {a: b}", []string{"state_dir"}},
		{"typo in a list", "pools: [{names: x, identity: y}]", []string{"pools[0]", "names"}},
		{"not a truth", "listen: {insecure: perhaps}", []string{"listen.insecure", "true or false", "perhaps"}},
		{"number as truth", "listen: {insecure: 3}", []string{"listen.insecure", "3 is not true or false"}},
		{"map as truth", "listen: {insecure: [x]}", []string{"listen.insecure", "not true or false"}},
		{"map as number", "migration: {bandwidth: [x]}", []string{"migration.bandwidth", "not a size"}},
		{"map as duration", "migration: {lease: [x]}", []string{"migration.lease", "90s"}},
		{"number as list", "peers: [[x]]", []string{"peers[0]"}},
		{"duration without unit", "migration: {lease: 90}", []string{"migration.lease", "90s"}},
		{"no duration", "migration: {timeout: soon}", []string{"migration.timeout", `"soon"`}},
		{"no size", "templates: {max_virtual_size: huge}", []string{"templates.max_virtual_size", `"huge"`}},
		{"broken YAML", "listen: [", []string{"wherry.yaml"}},
		{"key given twice", "state_dir: /a\nstate_dir: /b\n", []string{"state_dir"}},

		{"open to everybody", "listen: {tcp: ':8470'}", []string{"listen.tcp", "tls.ca", "listen.insecure"}},
		{"open on one address", "listen: {tcp: '192.0.2.1:8470'}", []string{"listen.tcp"}},
		{"open on IPv6", "listen: {tcp: '[::]:8470'}", []string{"listen.tcp"}},
		{"no port", "listen: {tcp: 127.0.0.1}", []string{"listen.tcp", `"127.0.0.1"`}},
		{"port out of range", "listen: {tcp: '127.0.0.1:70000'}", []string{"listen.tcp", `"70000"`}},
		{"name as address", certificates + "listen: {tcp: 'hosta:8470'}", []string{"listen.tcp", `"hosta"`}},
		{"same address twice", "listen: {tcp: '127.0.0.1:1', metrics: '127.0.0.1:1'}", []string{"listen.metrics"}},
		{"relative socket", "listen: {socket: agent.sock}", []string{"listen.socket", `"agent.sock"`}},
		{"socket path too long", "listen: {socket: /" + strings.Repeat("x", 107) + "}", []string{"listen.socket", "107"}},
		{"half of TLS", "tls: {ca: /t/ca, key: /t/key}", []string{"tls", "all three"}},
		{"relative certificate", "tls: {ca: ca, cert: /t/cert, key: /t/key}", []string{"tls.ca"}},
		{"no state", "state_dir: ''", []string{"state_dir"}},
		{"host with a port", "host: {name: 'a:1'}", []string{"host.name"}},
		{"other hypervisor", "hypervisor: {uri: 'xen:///system'}", []string{"hypervisor.uri", "xen"}},
		{"no URI", "migration: {libvirt_uri: '%'}", []string{"migration.libvirt_uri"}},
		{"address with a slash", "migration: {address: 'a/b'}", []string{"migration.address"}},
		{"no time at all", "migration: {timeout: 0s}", []string{"migration.timeout"}},
		{"hardly any patience", "migration: {patience: 10ms}", []string{"migration.patience"}},
		{"less patience at the end", "migration: {patience: 10s, last_patience: 5s}", []string{"migration.last_patience", "migration.patience"}},
		{"stall beyond the timeout", "migration: {timeout: 1m, stall_timeout: 2m}", []string{"migration.stall_timeout", "migration.timeout"}},
		{"negative bandwidth", "migration: {bandwidth: -1}", []string{"migration.bandwidth"}},
		{"nothing may leave", "migration: {max_outgoing: 0}", []string{"migration.max_outgoing"}},
		{"nothing may arrive", "migration: {max_incoming: -1}", []string{"migration.max_incoming"}},
		{"less than nothing for all", "migration: {host_bandwidth: -1}", []string{"migration.host_bandwidth"}},
		{"no downtime", "migration: {max_downtime: -1s}", []string{"migration.max_downtime"}},
		{"no time to find out", "migration: {decision_timeout: 1s}", []string{"migration.decision_timeout", "10s"}},
		{"short lease", "migration: {lease: 1s}", []string{"migration.lease", "10s"}},
		{"peer without scheme", "peers: [hostb]", []string{"peers[0]", "hostb"}},
		{"peer in plain text", "peers: ['https://b', 'http://c']", []string{"peers[1]", "https"}},
		{"peer with a path", "peers: ['https://b/v1']", []string{"peers[0]"}},
		{"peer twice", "peers: ['https://b', 'https://b']", []string{"peers[1]", "twice"}},
		{"pool without a name", "pools: [{identity: x}]", []string{"pools[0]", "name"}},
		{"pool without identity", "pools: [{name: x}]", []string{"pools[0]", "identity"}},
		{"pool twice", "pools: [{name: x, identity: a}, {name: x, identity: b}]", []string{"pools[1]", "twice"}},
		{"no template pool", "templates: {pool: ''}", []string{"templates.pool"}},
		{"address without a mask", "templates: {allow_addresses: [10.0.0.1]}", []string{"templates.allow_addresses[0]", "10.0.0.1"}},
		{"relative folder", "templates: {file_folders: [/a, b]}", []string{"templates.file_folders[1]"}},
		{"no room for templates", "templates: {max_virtual_size: 0}", []string{"templates.max_virtual_size"}},
		{"no room for a file", "templates: {max_size: -1}", []string{"templates.max_size", "-1 is not a positive size"}},
		{"relative authorities", "templates: {ca: ca.pem}", []string{"templates.ca", `"ca.pem"`}},
		{"no idle time", "templates: {idle_timeout: 0s}", []string{"templates.idle_timeout"}},
		{"retry at once", "templates: {retry_first: 10ms}", []string{"templates.retry_first", "less than 1s"}},
		{"retry that shrinks", "templates: {retry_first: 2m, retry_max: 90s}", []string{"templates.retry_max", "1m30s", "templates.retry_first (2m0s)"}},
		{"no download", "templates: {downloads: 0}", []string{"templates.downloads", "0 is not between 1 and 64"}},
		{"too many senders", "templates: {senders: 65}", []string{"templates.senders", "65"}},
		{"half a download", "templates: {downloads: 1.5}", []string{"templates.downloads", "1.5 is not a whole number"}},
		{"number in words", "templates: {senders: many}", []string{"templates.senders", `"many" is not a whole number`}},
		{"truth as number", "templates: {senders: true}", []string{"templates.senders", "true is not a whole number"}},
		{"negative rate", "templates: {bandwidth: -5}", []string{"templates.bandwidth", "-5 is negative"}},
		{"check without end", "templates: {check_interval: 1ms}", []string{"templates.check_interval", "less than 1s"}},
		{"negative age", "templates: {unused_age: -1h}", []string{"templates.unused_age", "negative"}},
		{"more free than can be", "templates: {min_free: 91}", []string{"templates.min_free", "91 is not between 0 and 90"}},
		{"gone before it is used", "templates: {keep_at_least: 0s}", []string{"templates.keep_at_least", "less than 1s"}},
		{"negative free", "templates: {min_free: -1}", []string{"templates.min_free", "-1"}},
		{"relative target folder", "targets: {file_folders: [x]}", []string{"targets.file_folders[0]"}},
		{"rescan by PATH", "powerflex: {rescan: [drv_cfg]}", []string{"powerflex.rescan[0]"}},
		{"unknown level", "log: {level: warning}", []string{"log.level", `did you mean "warn"?`}},
		{"unknown format", "log: {format: xml}", []string{"log.format", "text, json"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := load(t, test.file)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %s:\n%v", want, err)
				}
			}
		})
	}
}

func TestAllowed(t *testing.T) {
	for name, file := range map[string]string{
		"plain text on loopback":    "listen: {tcp: '127.0.0.1:8470'}",
		"on IPv6 loopback":          "listen: {tcp: '[::1]:8470'}",
		"on localhost":              "listen: {tcp: 'localhost:8470'}",
		"any port on loopback":      "listen: {tcp: '127.0.0.1:0'}",
		"insecure in so many words": "listen: {tcp: ':8470', insecure: true}\npeers: ['http://b:8470']",
		"everything off":            "listen: {tcp: '', metrics: ''}\npowerflex: {rescan: []}",
		"nothing collected":         "templates: {min_free: 0, unused_age: 0s}",
		"retry at one pace":         "templates: {retry_first: 1m, retry_max: 1m}",
		"libvirt's test driver":     "hypervisor: {uri: 'test:///default'}",
	} {
		if _, err := load(t, file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := load(t, "state_dir: x\nlog: {level: loud}\niscsi: {timeout: -1s}\nlisten: {tcp: ':1'}\n")
	for _, key := range []string{"state_dir:", "log.level:", "iscsi.timeout:", "listen.tcp:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is missing in:\n%v", key, err)
		}
	}
	_, err = load(t, "migration: {lease: 90, timeout: soon}\nlisten: {insecure: 3x}\n")
	for _, key := range []string{"migration.lease:", "migration.timeout:", "listen.insecure:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is missing in:\n%v", key, err)
		}
	}
	_, err = load(t, "a: 1\nlisten: {b: 2}\n", "c=3", "d")
	for _, name := range []string{`"a"`, `"listen.b"`, `"c"`, `"d"`} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is missing in:\n%v", name, err)
		}
	}
}

func TestUnknownVariable(t *testing.T) {
	t.Setenv("WHERRY_LISTEN_TPC", ":1")
	_, err := load(t, "")
	if err == nil || !strings.Contains(err.Error(), `did you mean "WHERRY_LISTEN_TCP"?`) {
		t.Errorf("got %v", err)
	}
}

func TestVariablesOfOthers(t *testing.T) {
	for _, name := range []string{"WHERRY_AGENT", "WHERRY_LAB", "WHERRY_LAB_DIR", "WHERRY_CACHE", "WHERRY_DEB", "WHERRYMAN"} {
		t.Setenv(name, "x")
	}
	if _, err := load(t, ""); err != nil {
		t.Error(err)
	}
}

func TestEnvironmentFaultNamesTheKey(t *testing.T) {
	t.Setenv("WHERRY_MIGRATION_LEASE", "90")
	t.Setenv("WHERRY_POOLS", "fast")
	_, err := load(t, "")
	for _, want := range []string{"migration.lease:", `pools: "fast" is not name=identity`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in:\n%v", want, err)
		}
	}
}

func TestCheckFiles(t *testing.T) {
	c := config.Default()
	if err := c.CheckFiles(); err != nil {
		t.Errorf("no certificates: %v", err)
	}
	c.TLS = config.TLS{CA: write(t, "x"), Cert: "/nonexistent/cert", Key: "/nonexistent/key"}
	err := c.CheckFiles()
	if err == nil || !strings.Contains(err.Error(), "tls.cert:") || !strings.Contains(err.Error(), "tls.key:") || strings.Contains(err.Error(), "tls.ca") {
		t.Errorf("two of three files are missing: %v", err)
	}
	c = config.Default()
	c.Templates.CA = write(t, "no certificate")
	if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), "templates.ca:") {
		t.Errorf("a file of authorities without one: %v", err)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"listen.tcp", "listen.metrics", "migration.lease", "migration.timeout"}
	for name, want := range map[string]string{
		"listen.tpc": "listen.tcp", "listen.metric": "listen.metrics", "lease": "migration.lease",
		"colour": "", "": "", "x": "",
	} {
		if got := config.Nearest(name, words); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

// Any file is either loaded or refused; never a panic, never a fault in
// values that were accepted.
func FuzzLoad(f *testing.F) {
	f.Add(everything)
	f.Add("listen:\n")
	f.Add("pools: [1, {name: [x]}]\npeers: {a: b}\n")
	f.Add("listen.tcp: ':1'\nLISTEN: {TCP: x}\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Load(config.Options{File: write(t, text)})
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("accepted, but: %v", err)
		}
	})
}
