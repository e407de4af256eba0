// Package http serves the agent's interface: a Unix socket for the local
// administrator, TCP with mutual TLS for management servers and peers, and a
// listener of its own for metrics and probes.
//
// It decides who may call what and whether a request is well formed; what a
// request does is the business of the services that [Options] names. The wire
// types are in http/api, the contract in openapi.yaml, which is served and
// which the tests hold every request and response against.
package http
