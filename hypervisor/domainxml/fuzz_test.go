package domainxml

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func seeds(f *testing.F) {
	f.Helper()
	for _, name := range []string{"testdata/live-9.0.xml", "testdata/migratable-11.3.xml"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	for _, s := range []string{
		"<domain/>", "<domain><devices><disk><target dev='vda'/></disk></devices></domain>",
		`<domain><devices><disk type="file" ><driver type = "raw"/><source file="/a"/><mirror/><target dev="vda"></target></disk></devices></domain>`,
		"<domain><devices><disk\ttype='network'\n><source protocol='iscsi' name='q/1'><host name='::1'/></source><backingStore><backingStore/></backingStore><target dev='a'/></disk><graphics type='vnc' listen='1.2.3.4'/></devices></domain>",
		"<domain xmlns:q='u'><devices><q:disk/><disk><source file='a'/><source file='b'/><auth/><target dev='x&#9;'/></disk></devices><!-- --><![CDATA[x]]></domain>",
		"<!DOCTYPE a><domain/>", "<domain><vcpu>2</vcpu><memory unit='GiB'>1</memory></domain>",
	} {
		f.Add(s)
	}
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse(text)
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("error without ErrInvalid: %v", err)
		}
		if err == nil && (d.Memory < 0 || d.VCPUs < 1) {
			t.Fatalf("impossible domain %+v", d)
		}
	})
}

// FuzzRewrite gives every disk that has a source another one. The result must
// say so, and outside the disks nothing may differ.
func FuzzRewrite(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		before, err := Parse(text)
		if err != nil {
			return
		}
		var o RewriteOptions
		for i, d := range before.Disks {
			r := DiskRewrite{Target: d.Target, OldSource: d.Source, Type: "file", Source: fmt.Sprintf("/new/%d & 'x'.img", i), Format: "qcow2"}
			if i%2 == 1 {
				r.Backing = []BackingLayer{{Path: "/base<>", Format: "raw", Type: "file"}}
			}
			o.Disks = append(o.Disks, r)
		}
		got, err := Rewrite(text, o)
		if err != nil {
			t.Fatalf("rewrite of valid XML: %v", err)
		}
		after, err := Parse(got)
		if err != nil {
			t.Fatalf("no longer valid: %v\n%s", err, got)
		}
		for i, r := range o.Disks {
			d := after.Disks[i]
			if d.Target != r.Target || d.Source != r.Source || d.Format != r.Format || d.Type != "file" || d.Mirror || !d.BackingTerminated || !cmp.Equal(d.Chain, r.Backing) {
				t.Fatalf("disk %d is %+v after %+v\n%s", i, d, r, got)
			}
		}
		if strings.Contains(text, "/channel/") {
			return // generated paths change, see the table tests
		}
		if a, b := outside(t, text), outside(t, got); a != b {
			t.Fatalf("outside the disks (-before +after):\n%s", cmp.Diff(a, b))
		}
	})
}

// outside is the text with the inside of its disks cut out.
func outside(t *testing.T, text string) string {
	t.Helper()
	root, err := parseDomain(text)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	at := 0
	for _, n := range root.child("devices").all("disk") {
		out.WriteString(text[at:n.start])
		at = n.end
	}
	return out.String() + text[at:]
}
