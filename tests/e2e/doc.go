// Package e2e holds the end-to-end tests: two real hosts, real instances, and
// what a caller of the agents and a guest inside can see. The tests need the
// lab (build tag "lab"; see tests/README.md).
package e2e
