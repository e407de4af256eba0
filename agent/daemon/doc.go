// Package daemon puts the agent together and runs it: the one place that knows
// every other package.
package daemon
