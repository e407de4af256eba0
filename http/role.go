package http

import (
	"crypto/x509"
	"net/http"
	"slices"

	"github.com/wherry-kvm/wherry/http/api"
)

// role is what a caller may do.
type role string

const (
	roleManagement role = "management" // everything
	rolePeer       role = "peer"       // the routes that say so
	roleProbe      role = "probe"      // the listener for metrics and probes has nothing else
)

// callerLocal is the name of whoever comes by the socket.
const callerLocal = "local"

// Organisational units of a client certificate that carry a role.
const (
	unitManagement = "wherry-management"
	unitPeer       = "wherry-peer"
)

// caller gives the role of a request, and the name that the log shows.
// It returns "unauthorized" or "forbidden".
func caller(r *http.Request) (role, string, error) {
	switch r.Context().Value(kindKey{}) {
	case kindProbes:
		return roleProbe, "", nil
	case kindLocal:
		return roleManagement, callerLocal, nil
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", "", api.NewProblem("unauthorized", "this listener wants a client certificate of its authority")
	}
	leaf := r.TLS.VerifiedChains[0][0]
	granted, err := roleOf(leaf)
	return granted, leaf.Subject.CommonName, err
}

// roleOf reads the role from a verified certificate. One that names both units
// is a management server's.
func roleOf(leaf *x509.Certificate) (role, error) {
	units := leaf.Subject.OrganizationalUnit
	switch {
	case slices.Contains(units, unitManagement):
		return roleManagement, nil
	case slices.Contains(units, unitPeer):
		return rolePeer, nil
	}
	return "", api.NewProblem("forbidden", "the certificate of %q has the organisational units %q; it needs %q or %q",
		leaf.Subject.CommonName, units, unitManagement, unitPeer)
}
