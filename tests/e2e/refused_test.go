//go:build lab

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// state is all of both hosts that a refused request could have touched: files
// by inode, domains with their state, records.
func (w *world) state() string {
	w.Helper()
	var out strings.Builder
	for _, s := range w.sides() {
		fmt.Fprintf(&out, "host %s\n%s\n", s.Name, w.exec(s, "sh", "-c", `
			find "$0" "$1" "$2" /var/lib/wherry/records -printf "%p %i %y\n" | sort
			virsh -q list --all | awk '{ $1 = ""; print }' | sort
			for d in $(virsh -q list --all --name); do virsh domuuid "$d"; virsh dumpxml --inactive "$d"; done
			virsh -q pool-list --all`, harness.ImagesPath, harness.SecondPath, harness.SharedPath))
	}
	return out.String()
}

// untouched wants both hosts as they were.
func (w *world) untouched(before string) {
	w.Helper()
	if after := w.state(); after != before {
		w.Errorf("the hosts were\n%s\nand are\n%s", before, after)
	}
}

// smallPool gives a host a pool on a file system of its own, of that size.
func (w *world) smallPool(on *side, name, size string) {
	w.Helper()
	dir := "/srv/" + name
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := on.Exec(ctx, "sh", "-c", `virsh -q pool-destroy "$0"; virsh -q pool-undefine "$0"; umount "$1"; rmdir "$1"`, name, dir)
		if err != nil {
			w.Errorf("removing pool %s: %v %s", name, err, out)
		}
	})
	w.exec(on, "mkdir", "-p", dir)
	w.exec(on, "mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir)
	w.exec(on, "virsh", "-q", "pool-define-as", name, "dir", "--target", dir)
	w.exec(on, "virsh", "-q", "pool-start", name)
}

// forgetBackingFormat makes an image that names its backing file and not its
// format, as tools of old did: qemu-img does so no more. The header extension
// with the format becomes the end of the extensions (docs/interop/qcow2 of QEMU).
func (w *world) forgetBackingFormat(file string) {
	w.Helper()
	data, err := os.ReadFile(file)
	w.must(err)
	at := bytes.Index(data, []byte{0xe2, 0x79, 0x2a, 0xca})
	if at < 0 || at > 4096 {
		w.Fatalf("%s records no backing format", file)
	}
	clear(data[at : at+8])
	w.must(os.WriteFile(file, data, 0o600))
}

// Everything that stands in the way is said at once, by plan and migrate alike,
// and neither host is touched; with all of it out of the way the instance goes.
func TestRefusedForEveryReasonAtOnce(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	base, disc := images("base.qcow2"), images("disc.iso")
	vda, vdb, vdc := images(name+"-vda.qcow2"), images(name+"-vdb.qcow2"), images(name+"-vdc.qcow2")
	w.put(w.a, w.picture("base", w.Name()), "base.qcow2")
	w.overlay(w.a, vda, base, "qcow2")
	w.forgetBackingFormat(w.seen(w.a, vda))
	w.volume(w.a, vdb, "qcow2")
	w.put(w.a, w.picture("large", w.Name()), filepath.Base(vdc))
	w.exec(w.a, "truncate", "-s", "1M", disc)
	w.smallPool(w.b, "small", "2m")

	// Libvirt is told what vda stands on: without that it would not start.
	backing := fmt.Sprintf("<backingStore type='file'><format type='qcow2'/><source file='%s'/><backingStore/></backingStore>", base)
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: vda, Backing: backing}, {Target: "vdb", Source: vdb},
		{Target: "vdc", Source: vdc}, {Target: "sda", Device: "cdrom", Format: "raw", Source: disc, ReadOnly: true}}})
	w.exec(w.a, "virsh", "-q", "snapshot-create-as", name, "before-the-upgrade")
	w.must(w.b.Define(w.ctx, harness.Domain{Name: name}.XML()))
	uuid := w.exec(w.b, "virsh", "domuuid", name)
	before := w.state()

	r := api.MigrateRequest{Disks: []api.DiskRequest{{Target: "vdb", Pool: "nowhere"}, {Target: "vdc", Pool: "small"}, {Target: "vdx"}}}
	problem := w.refused(w.a, name, r, "snapshots-present:", "snapshots-present:vda", "snapshots-present:vdb", "snapshots-present:vdc",
		"name-taken", "backing-format-unknown:vda", "pool-missing:vdb", "no-space:vdc", "disk-unknown:vdx", "media-missing:sda")
	w.untouched(before)
	details := ""
	for _, reason := range problem.Reasons {
		details += reason.Detail + "\n"
	}
	for _, word := range []string{"before-the-upgrade", uuid, base, "nowhere", "small", "vdx", disc} {
		if !strings.Contains(details, word) {
			t.Errorf("the reasons do not name %q:\n%s", word, details)
		}
	}
	if problem.Status != http.StatusUnprocessableEntity || problem.Hint == "" {
		t.Errorf("problem %s; want status 422 and a hint", describe(problem))
	}

	// What is put right is said no more.
	w.exec(w.a, "virsh", "-q", "snapshot-delete", name, "before-the-upgrade")
	w.exec(w.b, "virsh", "-q", "undefine", name)
	w.must(os.WriteFile(w.seen(w.b, disc), bytes.Repeat([]byte("another disc"), mib/12), 0o600))
	w.refused(w.a, name, api.MigrateRequest{}, "backing-format-unknown:vda", "media-missing:sda")
	w.copied(w.a, disc, w.b, disc)
	w.refused(w.a, name, api.MigrateRequest{}, "backing-format-unknown:vda")
	w.must(w.lab.Guest(name).WaitMore(w.ctx, w.a.Host, "vda", 3))
	if _, err := w.lab.Guest(name).Verify(w.ctx, w.a.Host); err != nil {
		t.Error(err)
	}
}

// stranger makes a certificate that is good for host b in every way but one:
// nobody here knows who signed it.
func (w *world) stranger() tls.Certificate {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		Subject:  pkix.Name{CommonName: w.b.Hostname(), OrganizationalUnit: []string{"wherry-peer"}},
		DNSNames: []string{w.b.Hostname()}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	w.must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A destination that does not answer, is a stranger, or is this host itself is
// refused with nothing touched; a stranger is told nothing of the instance, and
// gets no answer when it calls.
func TestRefusedDestinations(t *testing.T) {
	w := begin(t)
	name := w.unique("vm")
	volume := images(name + ".qcow2")
	w.volume(w.a, volume, "qcow2")
	w.foreign(w.a, harness.Domain{Name: name, Disks: []harness.Disk{{Target: "vda", Source: volume}}})
	before := w.state()

	stranger := w.stranger()
	listener, err := w.b.Listen("tcp", "10.77.0.2:0")
	w.must(err)
	var told atomic.Int64
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{stranger}},
		ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told.Add(1) })}
	go server.ServeTLS(listener, "", "")
	defer server.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	w.must(err)

	ref := api.Ref{Name: name}
	for what, tc := range map[string]struct{ destination, words string }{
		"nobody listens": {"https://wherry-b:8469", "refused"},
		"no such name":   {"https://nowhere.invalid:8470", "nowhere.invalid"},
		"another CA":     {"https://wherry-b:" + port, "certificate"},
	} {
		_, err := w.a.api.Plan(w.ctx, ref, api.MigrateRequest{Destination: tc.destination})
		p := w.problem(err, "peer-unreachable")
		if p.Status != http.StatusBadGateway || !strings.Contains(p.Detail, tc.words) || p.Hint == "" {
			t.Errorf("%s: problem %s; want status 502, the word %q and a hint", what, describe(p), tc.words)
		}
		_, err = w.a.api.Migrate(w.ctx, ref, api.MigrateRequest{Destination: tc.destination}, "")
		if p := w.problem(err, "peer-unreachable"); p.Phase != "offer" || p.Operation == "" {
			t.Errorf("%s: problem %s; want phase offer and the operation", what, describe(p))
		}
	}
	if n := told.Load(); n != 0 {
		t.Errorf("the stranger got %d requests", n)
	}
	w.refused(w.a, name, api.MigrateRequest{Destination: w.a.URL()}, "same-host")
	w.untouched(before)

	// The other way round: the stranger calls agent b.
	conn, err := w.a.Dial("tcp", "10.77.0.2:8470")
	w.must(err)
	defer conn.Close()
	call := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			return tls.Client(conn, &tls.Config{Certificates: []tls.Certificate{stranger}, InsecureSkipVerify: true}), nil
		}}}
	answer, err := call.Get("https://wherry-b:8470/v1/host")
	if err == nil {
		answer.Body.Close()
		t.Errorf("agent b answered a stranger with %s", answer.Status)
	} else if !strings.Contains(err.Error(), "tls") {
		t.Errorf("error %v; want agent b to refuse the certificate", err)
	}

	// And one that is stopped is no live migration.
	w.exec(w.a, "virsh", "-q", "destroy", name)
	before = w.state()
	for what, err := range map[string]error{
		"plan":    second(w.a.api.Plan(w.ctx, ref, api.MigrateRequest{Destination: w.b.URL()})),
		"migrate": second(w.a.api.Migrate(w.ctx, ref, api.MigrateRequest{Destination: w.b.URL()}, "")),
	} {
		if p := w.problem(err, "precondition"); p.Status != http.StatusPreconditionFailed || !strings.Contains(p.Detail, name) {
			t.Errorf("%s of a stopped instance: %s; want status 412", what, describe(p))
		}
	}
	w.untouched(before)
}

func second[T any](_ T, err error) error { return err }
