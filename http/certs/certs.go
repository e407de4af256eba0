// Package certs makes TLS configurations out of three PEM files (an authority,
// a certificate and its key) and follows the files when they change, so that a
// renewed certificate needs no restart. Agents and their clients share it.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// maxFile bounds a PEM file, in bytes.
const maxFile = 1 << 20

// Files are paths of PEM files. CA verifies the other side; Cert (leaf first)
// and Key are one's own.
type Files struct {
	CA, Cert, Key string
}

// Empty tells whether no file is given.
func (f Files) Empty() bool { return f == Files{} }

// Store holds what the files said when they were last readable. It is safe for
// concurrent use.
type Store struct {
	files Files
	log   *slog.Logger

	mu    sync.Mutex
	stamp [3]stamp
	roots *x509.CertPool
	pair  *tls.Certificate
}

// Open reads the files once, so that a wrong path or a key of another
// certificate is an error now and not at the first connection. Files may leave
// out CA, or both Cert and Key.
func Open(f Files, log *slog.Logger) (*Store, error) {
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a certificate and its key go together: one of them is missing")
	}
	s := &Store{files: f, log: log}
	s.stamp = s.stamps()
	var err error
	if s.roots, s.pair, err = load(f); err != nil {
		return nil, err
	}
	return s, nil
}

// current gives the authority and the pair, re-read if a file changed. Files
// are replaced one after the other, so a certificate may not fit its key for a
// moment: then, and when they cannot be read, the last good ones stay.
func (s *Store) current() (*x509.CertPool, *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.stamps()
	if now == s.stamp {
		return s.roots, s.pair
	}
	roots, pair, err := load(s.files)
	if err != nil {
		s.log.Warn("certificates cannot be re-read; the old ones stay", "error", err)
		return s.roots, s.pair
	}
	s.stamp, s.roots, s.pair = now, roots, pair
	s.log.Info("certificates re-read", "certificate", s.files.Cert)
	return roots, pair
}

// stamp tells one version of a file from the next.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

func (s *Store) stamps() (out [3]stamp) {
	for i, path := range []string{s.files.CA, s.files.Cert, s.files.Key} {
		if info, err := os.Stat(path); err == nil {
			out[i] = stamp{info.ModTime(), info.Size(), inode(info)}
		}
	}
	return out
}

func load(f Files) (roots *x509.CertPool, pair *tls.Certificate, err error) {
	if f.CA != "" {
		pem, err := read(f.CA)
		if err != nil {
			return nil, nil, err
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("no certificate in %q", f.CA)
		}
	}
	if f.Cert == "" {
		return roots, nil, nil
	}
	cert, err := read(f.Cert)
	if err != nil {
		return nil, nil, err
	}
	key, err := read(f.Key)
	if err != nil {
		return nil, nil, err
	}
	both, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %q with key %q: %w", f.Cert, f.Key, err)
	}
	return roots, &both, nil
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%q is no PEM file", path)
	}
	return os.ReadFile(path)
}
