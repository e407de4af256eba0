package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSocketPath is what fits into sockaddr_un.sun_path with its final zero
// (unix(7)).
const maxSocketPath = 107

// faults collects what is wrong, each with its key.
type faults []error

func (f *faults) add(key, format string, args ...any) {
	*f = append(*f, fmt.Errorf("%s: %w", key, fmt.Errorf(format, args...)))
}

// Validate reports every value that cannot work, each with its key, joined.
// It looks at the values only: no file is opened and nothing is resolved.
func (c Config) Validate() error {
	var f faults
	c.validateListen(&f)
	c.validateTLS(&f)
	f.absolute("state_dir", c.StateDir)
	if c.Host.Name == "" || strings.ContainsAny(c.Host.Name, " \t\n/:@?#") {
		f.add("host.name", "%q is not a host name", c.Host.Name)
	}
	f.libvirtURI("hypervisor.uri", c.Hypervisor.URI)
	c.validateMigration(&f)
	c.validatePeers(&f)
	c.validatePools(&f)
	c.validateTemplates(&f)
	f.folders("targets.file_folders", c.Targets.FileFolders)
	c.validateConnectors(&f)
	f.positive("operations.keep", c.Operations.Keep)
	f.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	f.oneOf("log.format", c.Log.Format, "text", "json")
	return errors.Join(f...)
}

func (c Config) validateListen(f *faults) {
	f.absolute("listen.socket", c.Listen.Socket)
	if len(c.Listen.Socket) > maxSocketPath {
		f.add("listen.socket", "the path has %d bytes, a socket's may have %d", len(c.Listen.Socket), maxSocketPath)
	}
	if c.Listen.TCP != "" && f.address("listen.tcp", c.Listen.TCP) {
		if !isLoopback(c.Listen.TCP) && !c.TLS.Configured() && !c.Listen.Insecure {
			f.add("listen.tcp", "%s can be reached from other hosts: give tls.ca, tls.cert and tls.key, or say listen.insecure: true", c.Listen.TCP)
		}
	}
	if c.Listen.Metrics != "" {
		f.address("listen.metrics", c.Listen.Metrics)
	}
	if c.Listen.TCP != "" && c.Listen.TCP == c.Listen.Metrics {
		f.add("listen.metrics", "%s is listen.tcp already", c.Listen.Metrics)
	}
}

func (c Config) validateTLS(f *faults) {
	given := 0
	for _, p := range []struct{ key, path string }{{"tls.ca", c.TLS.CA}, {"tls.cert", c.TLS.Cert}, {"tls.key", c.TLS.Key}} {
		if p.path != "" {
			given++
			f.absolute(p.key, p.path)
		}
	}
	if given != 0 && given != 3 {
		f.add("tls", "ca, cert and key are given all three or none")
	}
}

func (c Config) validateMigration(f *faults) {
	m := c.Migration
	f.libvirtURI("migration.libvirt_uri", m.LibvirtURI)
	if strings.ContainsAny(m.Address, " \t\n/") {
		f.add("migration.address", "%q is not an address or a host name", m.Address)
	}
	f.positive("migration.timeout", m.Timeout)
	f.positive("migration.stall_timeout", m.StallTimeout)
	if m.StallTimeout > m.Timeout {
		f.add("migration.stall_timeout", "%s is more than migration.timeout (%s)", m.StallTimeout, m.Timeout)
	}
	f.positive("migration.max_downtime", m.MaxDowntime)
	f.atLeast("migration.patience", m.Patience, time.Second)
	if m.LastPatience < m.Patience {
		f.add("migration.last_patience", "%s is less than migration.patience (%s)", m.LastPatience, m.Patience)
	}
	f.between("migration.max_outgoing", m.MaxOutgoing, 1, 1000)
	f.between("migration.max_incoming", m.MaxIncoming, 1, 1000)
	if m.Bandwidth < 0 {
		f.add("migration.bandwidth", "%d is negative", m.Bandwidth)
	}
	if m.HostBandwidth < 0 {
		f.add("migration.host_bandwidth", "%d is negative", m.HostBandwidth)
	}
	// A lease is renewed a few times within its length, over a network.
	if m.Lease < 10*time.Second {
		f.add("migration.lease", "%s is less than 10s", m.Lease)
	}
	// One look at a host that does not answer takes five seconds.
	if m.DecisionTimeout < 10*time.Second {
		f.add("migration.decision_timeout", "%s is less than 10s", m.DecisionTimeout)
	}
}

func (c Config) validatePeers(f *faults) {
	for i, peer := range c.Peers {
		key := fmt.Sprintf("peers[%d]", i)
		u, err := url.Parse(peer)
		switch {
		case err != nil:
			f.add(key, "%w", err)
		case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
			f.add(key, "%q is not a URL such as https://HOST:8470", peer)
		case u.Scheme == "http" && !c.Listen.Insecure:
			f.add(key, "%q is not https, and listen.insecure is not true", peer)
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			f.add(key, "%q has more than scheme, host and port", peer)
		case slices.Contains(c.Peers[:i], peer):
			f.add(key, "%q is listed twice", peer)
		}
	}
}

func (c Config) validatePools(f *faults) {
	seen := map[string]bool{}
	for i, p := range c.Pools {
		key := fmt.Sprintf("pools[%d]", i)
		if p.Name == "" {
			f.add(key, "has no name")
		}
		if p.Identity == "" {
			f.add(key, "has no identity")
		}
		if seen[p.Name] && p.Name != "" {
			f.add(key, "pool %q is listed twice", p.Name)
		}
		seen[p.Name] = true
	}
}

func (c Config) validateTemplates(f *faults) {
	t := c.Templates
	if t.Pool == "" {
		f.add("templates.pool", "is empty")
	}
	for i, cidr := range t.AllowAddresses {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			f.add(fmt.Sprintf("templates.allow_addresses[%d]", i), "%q is not a network such as 10.0.0.0/8", cidr)
		}
	}
	f.folders("templates.file_folders", t.FileFolders)
	if t.CA != "" {
		f.absolute("templates.ca", t.CA)
	}
	f.size("templates.max_virtual_size", t.MaxVirtualSize)
	f.size("templates.max_size", t.MaxSize)
	if t.Bandwidth < 0 {
		f.add("templates.bandwidth", "%d is negative", t.Bandwidth)
	}
	f.between("templates.downloads", t.Downloads, 1, 64)
	f.between("templates.senders", t.Senders, 1, 64)
	c.validateTemplateTimes(f)
}

func (c Config) validateTemplateTimes(f *faults) {
	t := c.Templates
	f.positive("templates.idle_timeout", t.IdleTimeout)
	// Less would keep a broken source busy with nothing but our attempts.
	f.atLeast("templates.retry_first", t.RetryFirst, time.Second)
	if t.RetryMax < t.RetryFirst {
		f.add("templates.retry_max", "%s is less than templates.retry_first (%s)", t.RetryMax, t.RetryFirst)
	}
	f.atLeast("templates.check_interval", t.CheckInterval, time.Second)
	if t.UnusedAge < 0 {
		f.add("templates.unused_age", "%s is negative", t.UnusedAge)
	}
	// More than 90 would delete every unused copy of a pool in plain use.
	f.between("templates.min_free", t.MinFree, 0, 90)
	// Without, a copy could go before whoever had it fetched stands on it.
	f.atLeast("templates.keep_at_least", t.KeepAtLeast, time.Second)
}

func (c Config) validateConnectors(f *faults) {
	f.absolute("powerflex.root", c.PowerFlex.Root)
	if len(c.PowerFlex.Rescan) > 0 {
		// A bare name would be looked up in a PATH that differs under systemd.
		f.absolute("powerflex.rescan[0]", c.PowerFlex.Rescan[0])
	}
	f.positive("powerflex.timeout", c.PowerFlex.Timeout)
	f.positive("iscsi.timeout", c.ISCSI.Timeout)
}

func (f *faults) absolute(key, path string) {
	if !filepath.IsAbs(path) {
		f.add(key, "%q is not an absolute path", path)
	}
}

func (f *faults) folders(key string, paths []string) {
	for i, p := range paths {
		f.absolute(fmt.Sprintf("%s[%d]", key, i), p)
	}
}

func (f *faults) positive(key string, d time.Duration) {
	if d <= 0 {
		f.add(key, "%s is not a positive duration", d)
	}
}

func (f *faults) atLeast(key string, d, least time.Duration) {
	if d < least {
		f.add(key, "%s is less than %s", d, least)
	}
}

func (f *faults) size(key string, bytes int64) {
	if bytes <= 0 {
		f.add(key, "%d is not a positive size", bytes)
	}
}

func (f *faults) between(key string, n, least, most int) {
	if n < least || n > most {
		f.add(key, "%d is not between %d and %d", n, least, most)
	}
}

func (f *faults) oneOf(key, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	if near := Nearest(value, allowed); near != "" {
		f.add(key, "%q is not one of %s: did you mean %q?", value, strings.Join(allowed, ", "), near)
		return
	}
	f.add(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
}

// libvirtURI wants a URI of libvirt's QEMU driver, with any transport.
func (f *faults) libvirtURI(key, uri string) {
	u, err := url.Parse(uri)
	if err != nil {
		f.add(key, "%w", err)
		return
	}
	driver, _, _ := strings.Cut(u.Scheme, "+")
	// The test driver is there for a host without QEMU; it cannot migrate.
	if driver != "qemu" && driver != "test" {
		f.add(key, "%q is not a libvirt URI such as qemu:///system", uri)
	}
}

// address wants host:port with a literal address or nothing as the host.
func (f *faults) address(key, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		f.add(key, "%q is not an address such as \":8470\" or \"127.0.0.1:9470\"", address)
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && !isLoopback(address) {
		f.add(key, "%q is not a port", port)
		return false
	}
	if host == "" || host == "localhost" {
		return true
	}
	if _, err := netip.ParseAddr(host); err != nil {
		f.add(key, "%q is neither an IP address nor empty (every address)", host)
		return false
	}
	return true
}

// isLoopback tells whether only this machine reaches the address.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
