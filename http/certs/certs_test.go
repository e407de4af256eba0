package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/http/certs"
)

// pair makes a self-signed certificate with its key, as PEM.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b})
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// presented gives the name on the certificate that a client would show now.
func presented(t *testing.T, s *certs.Store) string {
	t.Helper()
	got, err := s.Client("b").GetClientCertificate(&tls.CertificateRequestInfo{})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(got.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.Subject.CommonName
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	c1, k1 := pair(t, "one")
	_, k2 := pair(t, "two")
	cert, key := write(t, filepath.Join(dir, "cert"), c1), write(t, filepath.Join(dir, "key"), k1)
	other, text := write(t, filepath.Join(dir, "other"), k2), write(t, filepath.Join(dir, "text"), []byte("hello"))
	for _, row := range []struct {
		name  string
		files certs.Files
		says  string
	}{
		{"no key", certs.Files{Cert: cert}, "one of them is missing"},
		{"no certificate", certs.Files{Key: key}, "one of them is missing"},
		{"missing file", certs.Files{CA: filepath.Join(dir, "none")}, "none"},
		{"CA that is none", certs.Files{CA: text}, "no certificate in"},
		{"key of another", certs.Files{Cert: cert, Key: other}, "does not match"},
		{"folder", certs.Files{CA: dir}, "is no PEM file"},
	} {
		if _, err := certs.Open(row.files, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// TestHalfReplacedPair replaces the certificate before its key, as every
// renewal does: the old pair serves until the new one is whole.
func TestHalfReplacedPair(t *testing.T) {
	dir := t.TempDir()
	c1, k1 := pair(t, "one")
	c2, k2 := pair(t, "two")
	files := certs.Files{Cert: write(t, filepath.Join(dir, "cert"), c1), Key: write(t, filepath.Join(dir, "key"), k1)}
	s, err := certs.Open(files, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "one"},
		{func() { write(t, files.Cert, c2) }, "one"},
		{func() { write(t, files.Key, k2) }, "two"},
		{func() { _ = os.Remove(files.Key) }, "two"},
		{func() { write(t, files.Key, k1) }, "two"},
		{func() { write(t, files.Cert, c1) }, "one"},
	} {
		step.do()
		if got := presented(t, s); got != step.want {
			t.Errorf("shows %q, not %q", got, step.want)
		}
	}
}
