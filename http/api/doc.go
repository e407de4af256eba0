// Package api holds the wire types of the agent: what crosses HTTP between a
// management server, the command line and two peers. It imports nothing but
// the standard library, so that any Go program may use it.
//
// Sizes are bytes, durations are strings such as "90s" (type [Duration]),
// times are RFC 3339 in UTC.
package api
