// Package templates stands between the template registry, which knows neither
// the wire nor operations, and the rest of the agent.
package templates
