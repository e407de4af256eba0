package source_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func TestAddressRules(t *testing.T) {
	open := source.Allow(netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("fe80::/10"))
	for address, want := range map[string]struct{ public, opened bool }{
		"93.184.216.34":      {true, true},
		"2606:2800:220:1::1": {true, true},
		"::ffff:93.184.2.3":  {true, true},
		"10.1.2.3":           {false, true},
		"::ffff:10.1.2.3":    {false, true},
		"10.2.2.3":           {},
		"172.31.0.1":         {},
		"192.168.1.1":        {},
		"fd00:1::1":          {false, true},
		"fd00:2::1":          {},
		"fd00:ec2::254":      {}, // secrets of a cloud
		"127.0.0.1":          {},
		"127.255.255.254":    {},
		"::1":                {},
		"::ffff:127.0.0.1":   {},
		"::127.0.0.1":        {},
		"64:ff9b::7f00:1":    {}, // NAT64 of loopback
		"64:ff9b::a02:203":   {},
		"64:ff9b::5db8:d822": {true, true},
		"64:ff9b:1::1":       {},
		"2002:7f00:1::":      {}, // 6to4 of loopback
		"2002:a02:203::1":    {},
		"2002:5db8:d822::1":  {true, true},
		"2001::1":            {}, // Teredo
		"169.254.169.254":    {},
		"fe80::1":            {false, true},
		"fe80::1%lo":         {false, true},
		"100.100.100.200":    {}, // secrets of a cloud
		"192.0.0.192":        {},
		"198.18.0.1":         {},
		"224.0.0.1":          {},
		"ff02::1":            {},
		"240.0.0.1":          {},
		"255.255.255.255":    {},
		"0.0.0.0":            {},
		"0.1.2.3":            {},
		"::":                 {},
		"fec0::1":            {},
	} {
		a := netip.MustParseAddr(address)
		if got := source.Public(a); got != want.public {
			t.Errorf("public %s: %t", address, got)
		}
		if got := open(a); got != want.opened {
			t.Errorf("opened %s: %t", address, got)
		}
	}
	if source.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

// However loopback is written or looked up, nobody is asked there.
func TestForbiddenAddressesAreNotConnectedTo(t *testing.T) {
	inner := serveContent(t, "secret")
	through := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a proxy was asked") })
	proxy, err := url.Parse(through.URL)
	must(t, err)
	for name, d := range map[string]*source.Download{
		"direct": download(source.Options{AllowAddress: source.Public}),
		// A proxy would look up and connect in our place.
		"proxied": download(source.Options{AllowAddress: source.Public, Proxy: http.ProxyURL(proxy)}),
	} {
		for _, host := range []string{
			"127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.1",
			"[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "0", "localhost", "LOCALHOST.", "a.localhost",
			"169.254.169.254", "10.0.0.1", "[fe80::1%25lo]",
		} {
			t.Run(name+" "+host, func(t *testing.T) {
				_, err := get(t, d, "http://"+host+":"+inner.port()+"/latest?q=s3cret", nil)
				wantFault(t, err, fault.Address, "is not allowed")
				if strings.Contains(err.Error(), "s3cret") {
					t.Errorf("a secret is told: %v", err)
				}
			})
		}
	}
	if n := inner.requests.Load(); n != 0 {
		t.Errorf("%d requests came through", n)
	}
}

// A name is judged by what it resolves to at the time of connecting.
func TestNameThatResolvesToLoopback(t *testing.T) {
	inner := serveContent(t, "secret")
	d := download(source.Options{AllowAddress: source.Public, Resolver: resolver(t, netip.MustParseAddr("127.0.0.1"))})
	_, err := get(t, d, "http://images.example:"+inner.port(), nil)
	wantFault(t, err, fault.Address, "127.0.0.1:"+inner.port()+" is not allowed")
	if n := inner.requests.Load(); n != 0 {
		t.Errorf("%d requests came through", n)
	}
	// The same name is good where the address is.
	opened := download(source.Options{
		AllowAddress: source.Allow(netip.MustParsePrefix("127.0.0.0/8")), Resolver: resolver(t, netip.MustParseAddr("127.0.0.1")),
	})
	if got, err := get(t, opened, "http://images.example:"+inner.port(), nil); err != nil || got != "secret" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNamesThatDoNotResolve(t *testing.T) {
	d := download(source.Options{Resolver: resolver(t, netip.Addr{})})
	_, err := get(t, d, "https://images.example/x?q=s3cret", nil)
	wantFault(t, err, fault.Unresolvable, `cannot resolve "images.example": no such host`)
	mute := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "udp", Err: syscall.ECONNREFUSED}
	}}
	_, err = get(t, download(source.Options{Resolver: mute}), "https://images.example/x", nil)
	wantFault(t, err, fault.Unresolvable, `cannot resolve "images.example"`)
}

func TestRedirectToAForbiddenAddress(t *testing.T) {
	inner := serveContent(t, "secret")
	for name, to := range map[string]string{"literal": inner.URL, "by name": "http://localhost:1/", "decimal": "http://2130706433/"} {
		t.Run(name, func(t *testing.T) {
			outer := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
			asked := 0
			d := download(source.Options{AllowAddress: func(netip.Addr) bool { asked++; return asked <= 2 }})
			got, err := get(t, d, outer.URL, nil)
			wantFault(t, err, fault.Address)
			if inner.requests.Load() != 0 {
				t.Errorf("%q was read", got)
			}
		})
	}
}
