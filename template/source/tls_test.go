package source_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/template/fault"
	"github.com/wherry-kvm/wherry/template/source"
)

func authorities(s *httptest.Server) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(s.Certificate())
	return p
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// serve is an honest server with a certificate of the authority.
func (a authority) serve(t testing.TB, change func(*x509.Certificate)) *httptest.Server {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"a.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	must(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", old, strings.NewReader(content))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestCertificates(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	for name, tt := range map[string]struct {
		by     authority
		change func(*x509.Certificate)
		words  []string // none: good
	}{
		"good":       {ours, func(*x509.Certificate) {}, nil},
		"other name": {ours, func(c *x509.Certificate) { c.DNSNames = []string{"b.example"} }, []string{"TLS: certificate is for b.example, not for a.example"}},
		"many names": {
			ours, func(c *x509.Certificate) { c.DNSNames = []string{"b", "c", "d", "e", "f"} },
			[]string{"TLS: certificate is for b, c, d, e and others, not for a.example"},
		},
		"old kind of name": {
			ours, func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "a.example" },
			[]string{"TLS: certificate is for no name but the common name a.example, not for a.example"},
		},
		"of nobody": {theirs, func(*x509.Certificate) {}, []string{"TLS: certificate for a.example is signed by an unknown authority (CN=theirs)"}},
		"expired": {
			ours, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
			[]string{"TLS: certificate for a.example has expired or is not yet valid: current time ", " is after "},
		},
		"not yet": {
			ours, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
			[]string{"TLS: certificate for a.example has expired or is not yet valid: current time ", " is before "},
		},
		"for clients": {
			ours, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			[]string{"TLS: certificate for a.example is invalid: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tt.by.serve(t, tt.change)
			d := download(source.Options{Authorities: ours.pool(), Resolver: resolver(t, netip.MustParseAddr("127.0.0.1"))})
			got, err := get(t, d, "https://a.example:"+s.URL[strings.LastIndex(s.URL, ":")+1:]+"/x?q=s3cret", nil)
			if tt.words == nil {
				if err != nil || got != content {
					t.Errorf("%q, %v", got, err)
				}
				return
			}
			wantFault(t, err, fault.TLS, tt.words...)
		})
	}
}

func TestNoTLSThere(t *testing.T) {
	s := serveContent(t, content)
	s.Config.ErrorLog = quiet
	_, err := get(t, download(source.Options{}), strings.Replace(s.URL, "http:", "https:", 1), nil)
	wantFault(t, err, fault.TLS, "does not speak TLS")
}

func TestOldTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	s.Config.ErrorLog = quiet
	s.StartTLS()
	defer s.Close()
	_, err := get(t, download(source.Options{Authorities: authorities(s)}), s.URL, nil)
	wantFault(t, err, fault.TLS, "TLS: ")
}

func TestServerThatWantsACertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = quiet
	s.StartTLS()
	defer s.Close()
	_, err := get(t, download(source.Options{Authorities: authorities(s)}), s.URL, nil)
	wantFault(t, err, fault.TLS, "TLS: remote error: certificate required")
}
