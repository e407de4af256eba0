package source

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/wherry-kvm/wherry/template/fault"
)

// special are networks without public hosts (IANA's registries of special
// addresses, RFC 6890), besides those that netip knows. Those for documents
// are left out: nothing answers there.
var special = prefixes(
	"0.0.0.0/8",     // this network
	"100.64.0.0/10", // carriers' private space; clouds serve secrets there
	"192.0.0.0/24",  // protocol assignments; clouds serve secrets there
	"198.18.0.0/15", // benchmarks
	"240.0.0.0/4",   // reserved, and broadcast
	"64:ff9b:1::/48", "100::/64", "2001::/32", "fec0::/10",
)

// embedding are networks of IPv6 whose addresses lead to one of IPv4, with the
// byte at which it stands: compatible, NAT64 (RFC 6052) and 6to4 (RFC 3056).
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Public refuses loopback, link-local (where clouds serve secrets), private,
// multicast, unspecified and reserved addresses, also where they are wrapped
// in one of IPv6.
func Public(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || within(special, a) {
		return false
	}
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			b := a.As16()
			return Public(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	return true
}

// Allow is Public with more networks, as an operator opens them.
func Allow(networks ...netip.Prefix) func(netip.Addr) bool {
	networks = slices.Clone(networks)
	return func(a netip.Addr) bool {
		// A prefix contains no address with a zone, nor a mapped one.
		return within(networks, a.WithZone("").Unmap()) || Public(a)
	}
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

func forbidden(what string, a netip.Addr) error {
	if strings.Contains(what, a.String()) {
		return fault.New(fault.Address, "address %s is not allowed", what)
	}
	return fault.New(fault.Address, "address %s, which is %s, is not allowed", what, a)
}

// guard judges the address just before connecting: a name that was looked at
// earlier could resolve to another address now.
func guard(allow func(netip.Addr) bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fault.New(fault.Address, "address %q is not understood: %w", address, err)
		}
		if !allow(to.Addr()) {
			return forbidden(address, to.Addr())
		}
		return nil
	}
}

// literal reads a host that is an address, in the ways that resolvers of the C
// library do too: fewer than four parts, hexadecimal and octal (inet_aton).
func literal(host string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.WithZone("").Unmap(), true
	}
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var v uint64
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 0, 32)
		if err != nil || strings.ContainsAny(p, "_+-bBoO") {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, false
			}
			v |= n << (24 - 8*i)
			continue
		}
		// The last part fills all that is left.
		if n >= 1<<(32-8*i) {
			return netip.Addr{}, false
		}
		v |= n
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}
