// Package instance shows, creates, starts, stops and deletes the instances of
// this host.
package instance
