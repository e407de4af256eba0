package certs

import (
	"crypto/tls"
	"os"
	"syscall"
)

// Server gives a configuration that asks every client for a certificate of the
// authority, where there is one. Each handshake sees the files as they are.
//
// Only HTTP/1.1 is offered: a template's content and a migration's control
// calls then have a connection each, with a deadline each.
func (s *Store) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			roots, pair := s.current()
			c := &tls.Config{
				MinVersion: tls.VersionTLS13,
				NextProtos: []string{"http/1.1"},
				// A resumed session would not look at the authority again.
				SessionTicketsDisabled: true,
			}
			if pair != nil {
				c.Certificates = []tls.Certificate{*pair}
			}
			if roots != nil {
				c.ClientCAs, c.ClientAuth = roots, tls.RequireAndVerifyClientCert
			}
			return c, nil
		},
	}
}

// Client gives the configuration of one connection to serverName, from the
// files as they are now. Without a CA file the system's authorities count.
func (s *Store) Client(serverName string) *tls.Config {
	roots, pair := s.current()
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		ServerName: serverName,
		RootCAs:    roots,
	}
	if pair != nil {
		// Not Certificates: those are left out when the server's list of
		// authorities does not name the issuer, and the server would then
		// complain of a missing certificate instead of a wrong one.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return c
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
