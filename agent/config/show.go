package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Setting is one key with its value as text.
type Setting struct{ Key, Text string }

// Settings lists all keys with their values, in the order of the
// documentation.
func (c Config) Settings() []Setting {
	var out []Setting
	for _, l := range leaves(&c) {
		out = append(out, Setting{l.key, text(l.value.Interface())})
	}
	return out
}

func text(value any) string {
	switch v := value.(type) {
	case []string:
		return strings.Join(v, ",")
	case []Pool:
		var pools []string
		for _, p := range v {
			pools = append(pools, p.Name+"="+p.Identity)
		}
		return strings.Join(pools, ",")
	default:
		return fmt.Sprint(v)
	}
}

// Tree gives the configuration as nested maps with durations as strings, as a
// configuration file has it.
func (c Config) Tree() map[string]any {
	tree := map[string]any{}
	for _, l := range leaves(&c) {
		branch, key := tree, l.key
		if section, rest, nested := strings.Cut(l.key, "."); nested {
			if branch[section] == nil {
				branch[section] = map[string]any{}
			}
			branch, key = branch[section].(map[string]any), rest
		}
		branch[key] = plain(l.value.Interface())
	}
	return tree
}

func plain(value any) any {
	switch v := value.(type) {
	case time.Duration:
		return v.String()
	case []Pool:
		pools := []map[string]string{}
		for _, p := range v {
			pools = append(pools, map[string]string{"name": p.Name, "identity": p.Identity})
		}
		return pools
	default:
		return v
	}
}

// CheckFiles reports the certificates that cannot be read, all at once, and
// authorities of image servers in which there is no certificate.
func (c Config) CheckFiles() error {
	var faults faults
	for _, p := range []struct{ key, path string }{
		{"tls.ca", c.TLS.CA}, {"tls.cert", c.TLS.Cert}, {"tls.key", c.TLS.Key}, {"templates.ca", c.Templates.CA},
	} {
		if p.path == "" {
			continue
		}
		pem, err := os.ReadFile(p.path)
		switch {
		case err != nil:
			faults.add(p.key, "%w", err)
		case p.key == "templates.ca" && !x509.NewCertPool().AppendCertsFromPEM(pem):
			faults.add(p.key, "%q holds no certificate in PEM form", p.path)
		}
	}
	return errors.Join(faults...)
}
