package config

import (
	"reflect"
	"slices"
	"strings"
)

// EnvPrefix begins the name of every environment variable of the agent.
const EnvPrefix = "WHERRY_"

// otherVariables begin with the prefix but are not keys: the command line,
// the lab and the build read them.
var otherVariables = []string{"WHERRY_AGENT", "WHERRY_CONFIG", "WHERRY_CACHE", "WHERRY_DEB"}

// otherPrefixes begin families of such variables.
var otherPrefixes = []string{"WHERRY_LAB"}

// leaf is one key of the configuration.
type leaf struct {
	key   string
	value reflect.Value
}

// leaves lists the keys of a Config in the order of its fields, with their
// values. It is what the defaults, the environment, the suggestions and the
// printed configuration have in common, so that none can miss a key.
func leaves(c *Config) []leaf { return walk(reflect.ValueOf(c).Elem(), "") }

func walk(v reflect.Value, prefix string) []leaf {
	var out []leaf
	for i := range v.NumField() {
		key := prefix + v.Type().Field(i).Tag.Get("mapstructure")
		if f := v.Field(i); f.Kind() == reflect.Struct {
			out = append(out, walk(f, key+".")...)
		} else {
			out = append(out, leaf{key, f})
		}
	}
	return out
}

// Keys lists every key in the order of the documentation.
func Keys() []string {
	c := Default()
	var out []string
	for _, l := range leaves(&c) {
		out = append(out, l.key)
	}
	return out
}

// EnvName gives the environment variable of a key: listen.tcp is
// WHERRY_LISTEN_TCP.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// isOther tells whether a variable belongs to somebody else than the agent.
func isOther(name string) bool {
	return slices.Contains(otherVariables, name) ||
		slices.ContainsFunc(otherPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// sections are the keys that hold keys.
func sections(keys []string) map[string]bool {
	out := map[string]bool{}
	for _, k := range keys {
		if section, _, nested := strings.Cut(k, "."); nested {
			out[section] = true
		}
	}
	return out
}
