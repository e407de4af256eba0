package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// OriginTLS is how an Origin's certificate is.
type OriginTLS string

// Certificates of an Origin's servers. All but TLSUnknown are signed by the authority of Origin.CA.
const (
	TLSGood      OriginTLS = "good"
	TLSWrongName OriginTLS = "wrong-name" // made out to images.example
	TLSUnknown   OriginTLS = "unknown"    // signed by an authority that nobody knows
	TLSExpired   OriginTLS = "expired"    // yesterday
)

// SecureURL is Origin.URL over TLS.
func (o *Origin) SecureURL(kind OriginTLS, knob, name string) string {
	return o.url("https", o.tlsPorts()[kind], knob, name)
}

// CA is the PEM text of the authority that signed the certificates.
func (o *Origin) CA() []byte { return o.pki.ca }

func (o *Origin) tlsPorts() map[OriginTLS]int {
	return map[OriginTLS]int{TLSGood: o.ports.Good, TLSWrongName: o.ports.WrongName, TLSUnknown: o.ports.Unknown, TLSExpired: o.ports.Expired}
}

type originPKI struct {
	folder string
	ca     []byte
}

func (p *originPKI) file(kind OriginTLS) string { return filepath.Join(p.folder, string(kind)) }

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newOriginPKI(folder, address string) (*originPKI, error) {
	known, err := newAuthority("origin")
	if err != nil {
		return nil, err
	}
	unknown, err := newAuthority("nobody")
	if err != nil {
		return nil, err
	}
	p := &originPKI{folder: folder, ca: known.pem}
	here := []net.IP{net.ParseIP(address)}
	day := 24 * time.Hour
	for kind, c := range map[OriginTLS]struct {
		by   *authority
		ips  []net.IP
		till time.Duration
	}{
		TLSGood: {known, here, day}, TLSWrongName: {known, nil, day}, TLSUnknown: {unknown, here, day}, TLSExpired: {known, here, -day},
	} {
		leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "images.example"}, DNSNames: []string{"images.example"}, IPAddresses: c.ips,
			NotAfter: time.Now().Add(c.till), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := sign(leaf, c.by.certificate, key, c.by.key)
		if err != nil {
			return nil, err
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		for suffix, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, "-key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
			if err := os.WriteFile(p.file(kind)+suffix, pem.EncodeToMemory(block), 0o600); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := sign(c, c, key, key)
	if err != nil {
		return nil, err
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{signed, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// sign completes a certificate; it is valid from two days ago.
func sign(c, by *x509.Certificate, key, with *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	c.SerialNumber, c.NotBefore = serial, time.Now().Add(-48*time.Hour)
	return x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
}
