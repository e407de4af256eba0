package fault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
)

// handshake judges what TLS says: which certificate is wrong, and how.
func handshake(err error) *Fault {
	var hostname x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var roots x509.SystemRootsError
	switch {
	case errors.As(err, &hostname):
		return because(TLS, err, "TLS: certificate is for %s, not for %s", names(hostname.Certificate), hostname.Host)
	case errors.As(err, &authority):
		return because(TLS, err, "TLS: certificate%s is signed by an unknown authority%s", ofCertificate(err), issuer(authority.Cert))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		// Go's detail has this host's time as well, which may be what is wrong.
		return because(TLS, err, "TLS: certificate%s has expired or is not yet valid: %s", ofCertificate(err), invalid.Detail)
	case errors.As(err, &invalid):
		return because(TLS, err, "TLS: certificate%s is invalid: %s", ofCertificate(err), trim(invalid))
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return because(TLS, err, "TLS: the server does not speak TLS there (http instead of https?)")
	case errors.As(err, &roots):
		return because(TLS, err, "TLS: this host has no certificates of authorities")
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return because(TLS, err, "TLS: certificate%s does not verify: %s", ofCertificate(err), trim(e.Err))
	}
	// An alert, of the server or of ours, is a network error of these names.
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		return because(TLS, err, "TLS: %s: %s", op.Op, trim(op.Err))
	}
	return nil
}

// trim takes off the name of Go's package.
func trim(err error) string {
	s := err.Error()
	s = strings.TrimPrefix(s, "x509: ")
	return strings.TrimPrefix(s, "tls: ")
}

// names are whom a certificate is for, as far as they fit into a message.
func names(c *x509.Certificate) string {
	if c == nil {
		return "nobody"
	}
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	const shown = 4
	switch {
	case len(all) > shown:
		return strings.Join(all[:shown], ", ") + " and others"
	case len(all) > 0:
		return strings.Join(all, ", ")
	case c.Subject.CommonName != "":
		// Names count in the extension only (RFC 6125).
		return "no name but the common name " + c.Subject.CommonName
	}
	return "no name"
}

// ofCertificate says whose certificate failed, where that is known.
func ofCertificate(err error) string {
	e, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(e.UnverifiedCertificates) == 0 {
		return ""
	}
	return " for " + names(e.UnverifiedCertificates[0])
}

func issuer(c *x509.Certificate) string {
	if c == nil || c.Issuer.String() == "" {
		return ""
	}
	return " (" + c.Issuer.String() + ")"
}
