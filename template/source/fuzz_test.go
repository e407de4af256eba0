package source

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/template/digest"
)

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes */10", "bytes 0-0/*", "BYTES 1-2/3", "bytes */*", "bytes 9-0/10", "bytes -1-2/3", "", "bytes"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseContentRange(s)
		if !ok {
			return
		}
		unsatisfied := r.first == -1 && r.last == -1 && r.total >= 0
		within := r.first >= 0 && r.first <= r.last && (r.total == -1 || r.last < r.total)
		if !unsatisfied && !within {
			t.Errorf("%q: %+v", s, r)
		}
		// What was read is what is said again, but for leading zeros and case.
		span, total := fmt.Sprintf("%d-%d", r.first, r.last), "*"
		if unsatisfied {
			span = "*"
		}
		if r.total >= 0 {
			total = fmt.Sprint(r.total)
		}
		if again, ok := parseContentRange("bytes " + span + "/" + total); !ok || again != r {
			t.Errorf("%q: %+v, then %+v", s, r, again)
		}
	})
}

func FuzzMetalink(f *testing.F) {
	f.Add([]byte(`<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a"><size>1</size>`+
		`<hash type="sha-256">`+strings.Repeat("ab", 32)+`</hash><url priority="1">http://a/</url></file></metalink>`), "a")
	f.Add([]byte(`<metalink><files><file name="a"><verification><hash type="md5">`+strings.Repeat("ab", 16)+`</hash></verification>`+
		`<resources><url preference="9">http://a/</url></resources></file><file name="b"/></files></metalink>`), "b")
	f.Fuzz(func(t *testing.T, doc []byte, name string) {
		m, err := parseMetalink(doc, name)
		if err != nil {
			return
		}
		if m.size < -1 || len(m.hashes) > 4 {
			t.Errorf("%+v", m)
		}
		for i, h := range m.hashes {
			name, _ := digest.Split(h)
			stronger := digest.Strength(name) + 1
			if i > 0 {
				before, _ := digest.Split(m.hashes[i-1])
				stronger = digest.Strength(before)
			}
			if digest.Check(h) != nil || digest.Strength(name) >= stronger {
				t.Errorf("hashes %q", m.hashes)
			}
		}
		for i := 1; i < len(m.mirrors); i++ {
			if m.mirrors[i-1].priority > m.mirrors[i].priority {
				t.Errorf("order %+v", m.mirrors)
			}
		}
		// None of it leads anywhere but to a server that may be asked.
		from := &url.URL{Scheme: "https", Host: "h", Path: "/a.meta4"}
		found, err := newClient(Options{}).mirrors(from, m, nil)
		if err == nil && (len(found.Origins) == 0 || len(found.Origins) > maxMirrors) {
			t.Errorf("%d origins", len(found.Origins))
		}
		for _, o := range found.Origins {
			u := o.(*httpOrigin).url
			if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
				t.Errorf("mirror %s", u)
			}
		}
	})
}

// Whatever netip reads is read so; and whatever else is taken for an address
// is one of version 4.
func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "2130706433", "0x7f.1", "0177.1", "::1", "::ffff:1.2.3.4", "1.2.3.4.5", "256.1", "0x", "09", "a.1", "1_0", "0b1", "4294967296"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got, ok := literal(host)
		if want, err := netip.ParseAddr(host); err == nil && (!ok || got != want.WithZone("").Unmap()) {
			t.Errorf("%q: %s, %t; want %s", host, got, ok, want)
		} else if err != nil && ok && !got.Is4() {
			t.Errorf("%q: %s", host, got)
		}
	})
}

// The ways of the C library, by its manual (inet_aton(3)).
func TestLiteral(t *testing.T) {
	for host, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "127.1": "127.0.0.1", "127.0.1": "127.0.0.1", "2130706433": "127.0.0.1", "0x7f000001": "127.0.0.1",
		"0X7F.1": "127.0.0.1", "0177.0.0.01": "127.0.0.1", "017700000001": "127.0.0.1", "10.0.258": "10.0.1.2", "10.65538": "10.1.0.2", "0": "0.0.0.0",
		"::ffff:10.0.0.1": "10.0.0.1", "fe80::1%lo": "fe80::1",
		"1.2.3.4.5": "", "256.1": "", "1.256.1": "", "127.16777216": "", "4294967296": "", "08": "", "0x": "", "1_0": "", "0b1": "", "0o7": "",
		"+1": "", "-1": "", "a": "", "": "", "1.": "", "1..2": "", "deadbeef": "",
	} {
		got, ok := literal(host)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %s, %t", host, got, ok)
		}
	}
}
