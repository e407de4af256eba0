// Package config turns the configuration file, the environment and the flags
// of the agent into one typed, validated [Config].
//
// It is the only package that knows viper. Everything else reads Config, in
// which nothing is left open: names are resolved, durations are durations and
// sizes are bytes. A key that nobody knows, a value of a wrong type and a
// value that cannot work are errors which name the key; all of them are
// reported at once, so that a file is mended in one go.
package config
