package config

import "time"

// DefaultFile is read when no file is named. It may be missing.
const DefaultFile = "/etc/wherry/wherry.yaml"

// AutoTCP is the value of listen.tcp that means [DefaultTCP] on a host with
// certificates and no TCP listener on one without.
const AutoTCP = "auto"

// DefaultTCP is the address of the API for management servers and peers.
const DefaultTCP = ":8470"

// Config is the whole configuration of an agent. The key of a value is the
// path of its mapstructure tags: listen.tcp, powerflex.root.
type Config struct {
	Listen     Listen     `mapstructure:"listen"`
	TLS        TLS        `mapstructure:"tls"`
	StateDir   string     `mapstructure:"state_dir"`
	Host       Host       `mapstructure:"host"`
	Hypervisor Hypervisor `mapstructure:"hypervisor"`
	Migration  Migration  `mapstructure:"migration"`
	Peers      []string   `mapstructure:"peers"`
	Pools      []Pool     `mapstructure:"pools"`
	Templates  Templates  `mapstructure:"templates"`
	Targets    Targets    `mapstructure:"targets"`
	PowerFlex  PowerFlex  `mapstructure:"powerflex"`
	ISCSI      ISCSI      `mapstructure:"iscsi"`
	Operations Operations `mapstructure:"operations"`
	Log        Log        `mapstructure:"log"`
}

// Listen says where the agent answers.
type Listen struct {
	Socket   string `mapstructure:"socket"`   // path of the Unix socket
	TCP      string `mapstructure:"tcp"`      // address of the API; "" = off
	Metrics  string `mapstructure:"metrics"`  // address of /metrics, /livez and /readyz; "" = off
	Insecure bool   `mapstructure:"insecure"` // TCP beyond loopback without TLS
}

// TLS holds the paths of PEM files, all three or none.
type TLS struct {
	CA   string `mapstructure:"ca"`
	Cert string `mapstructure:"cert"`
	Key  string `mapstructure:"key"`
}

// Configured tells whether certificates are given.
func (t TLS) Configured() bool { return t.CA != "" && t.Cert != "" && t.Key != "" }

// Host is what this host calls itself. Load fills an empty name with the
// machine's host name.
type Host struct {
	Name       string `mapstructure:"name"`
	StartAgain bool   `mapstructure:"start_again"` // what ran when the host went down
}

// Hypervisor says which libvirt the agent drives.
type Hypervisor struct {
	URI string `mapstructure:"uri"`
}

// Migration holds the defaults of migrations, which a request may narrow.
type Migration struct {
	LibvirtURI    string        `mapstructure:"libvirt_uri"`    // where the libvirt of a peer reaches this host's; Load fills an empty one
	Address       string        `mapstructure:"address"`        // where migration streams arrive; "" = libvirt's choice
	TLS           bool          `mapstructure:"tls"`            // QEMU's native TLS for the streams
	Timeout       time.Duration `mapstructure:"timeout"`        // of a whole migration
	StallTimeout  time.Duration `mapstructure:"stall_timeout"`  // without a byte moved
	MaxDowntime   time.Duration `mapstructure:"max_downtime"`   // at the switchover, the most
	Patience      time.Duration `mapstructure:"patience"`       // with memory that comes no nearer to its end
	LastPatience  time.Duration `mapstructure:"last_patience"`  // before the guest is paused or the migration given up for it
	MaxOutgoing   int           `mapstructure:"max_outgoing"`   // from this host at once; others wait
	MaxIncoming   int           `mapstructure:"max_incoming"`   // to this host at once; their sources wait
	Bandwidth     int64         `mapstructure:"bandwidth"`      // bytes per second for each stream; 0 = no limit
	HostBandwidth int64         `mapstructure:"host_bandwidth"` // bytes per second for all migrations from this host together; 0 = no limit
	Lease         time.Duration `mapstructure:"lease"`          // of a reservation whose source is silent
	// How long both hosts are asked where an instance is, after a migration that
	// ended unclearly, before a person is.
	DecisionTimeout time.Duration `mapstructure:"decision_timeout"`
}

// Pool tells which physical storage a libvirt pool is, where the agent cannot
// find out: an equal identity on two hosts means the same storage.
type Pool struct {
	Name     string `mapstructure:"name"`
	Identity string `mapstructure:"identity"`
}

// Templates configures where templates come from and how they are kept.
type Templates struct {
	Pool           string        `mapstructure:"pool"`             // pool of a request that names none
	AllowAddresses []string      `mapstructure:"allow_addresses"`  // networks (CIDR) of private addresses that may be fetched from
	FileFolders    []string      `mapstructure:"file_folders"`     // folders that file:// may name
	CA             string        `mapstructure:"ca"`               // PEM file of authorities of image servers, besides the host's own
	MaxVirtualSize int64         `mapstructure:"max_virtual_size"` // bytes
	MaxSize        int64         `mapstructure:"max_size"`         // bytes of an image file, unpacked
	IdleTimeout    time.Duration `mapstructure:"idle_timeout"`     // without a byte received
	RetryFirst     time.Duration `mapstructure:"retry_first"`      // from a failure to the next attempt; doubles
	RetryMax       time.Duration `mapstructure:"retry_max"`        // what the doubling ends at
	Downloads      int           `mapstructure:"downloads"`        // at once, from URLs and peers together
	Senders        int           `mapstructure:"senders"`          // templates sent to peers at once
	Bandwidth      int64         `mapstructure:"bandwidth"`        // bytes per second for all downloads together; 0 = no limit
	CheckInterval  time.Duration `mapstructure:"check_interval"`   // between looks at whether copies are unchanged
	UnusedAge      time.Duration `mapstructure:"unused_age"`       // a copy that nothing stands on goes after so long; 0 = stays
	MinFree        int           `mapstructure:"min_free"`         // percent free in a pool under which unused copies go, oldest first; 0 = stay
	KeepAtLeast    time.Duration `mapstructure:"keep_at_least"`    // no copy goes that arrived, or was used last, less than this ago
}

// Targets configures targets of the type file.
type Targets struct {
	FileFolders []string `mapstructure:"file_folders"` // folders in which a file target may lie
}

// PowerFlex configures targets of the type powerflex.
type PowerFlex struct {
	Root    string        `mapstructure:"root"`    // folder of the by-id paths
	Rescan  []string      `mapstructure:"rescan"`  // command and arguments
	Timeout time.Duration `mapstructure:"timeout"` // until a path appears
}

// ISCSI configures targets of the type iscsi.
type ISCSI struct {
	Timeout time.Duration `mapstructure:"timeout"` // of a login
}

// Operations configures the journal.
type Operations struct {
	Keep time.Duration `mapstructure:"keep"` // a finished operation stays readable so long
}

// Log configures what the agent logs, to standard error.
type Log struct {
	Level  string `mapstructure:"level"`  // debug, info, warn, error
	Format string `mapstructure:"format"` // text, json
}

// Default gives the configuration of an agent that was told nothing, before
// [Load] fills in what depends on the host.
func Default() Config {
	return Config{
		Listen: Listen{
			Socket:  "/run/wherry/agent.sock",
			TCP:     AutoTCP,
			Metrics: "127.0.0.1:9470",
		},
		StateDir:   "/var/lib/wherry",
		Hypervisor: Hypervisor{URI: "qemu:///system"},
		Migration: Migration{
			// A bound, not an estimate: stall_timeout ends what does not move.
			Timeout:      24 * time.Hour,
			StallTimeout: 20 * time.Second,
			MaxDowntime:  time.Second,
			Patience:     5 * time.Second,
			LastPatience: 20 * time.Second,
			MaxOutgoing:  2,
			MaxIncoming:  2,
			Lease:        60 * time.Second,

			DecisionTimeout: 2 * time.Minute,
		},
		Peers: []string{},
		Pools: []Pool{},
		Templates: Templates{
			Pool:           "default",
			AllowAddresses: []string{},
			FileFolders:    []string{},
			MaxVirtualSize: 2 << 40,
			MaxSize:        2 << 40,
			IdleTimeout:    30 * time.Second,
			RetryFirst:     time.Minute,
			RetryMax:       5 * time.Minute,
			Downloads:      4,
			Senders:        3,
			CheckInterval:  10 * time.Second,
			MinFree:        5,
			KeepAtLeast:    time.Hour,
		},
		Targets: Targets{FileFolders: []string{}},
		PowerFlex: PowerFlex{
			Root:    "/dev/disk/by-id",
			Rescan:  []string{"/opt/emc/scaleio/sdc/bin/drv_cfg", "--rescan"},
			Timeout: 60 * time.Second,
		},
		ISCSI:      ISCSI{Timeout: 30 * time.Second},
		Operations: Operations{Keep: 7 * 24 * time.Hour},
		Log:        Log{Level: "info", Format: "text"},
	}
}
