// Package client speaks to an agent: the command line through the Unix socket,
// a peer or a management server through mutual TLS.
//
// What the agent answers as an error comes back as [*api.Problem]. An agent
// that could not be asked, or whose answer was lost, is [*Unreachable].
package client
