package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/viper"
)

// Options say where a configuration comes from. The zero value reads the
// default file and the environment.
type Options struct {
	File string   // named by the user: must exist; "" = $WHERRY_CONFIG, else DefaultFile, which may be missing
	Set  []string // key=value, the last word
}

// Load reads the file, then the environment, then opts.Set, each over the
// former, fills in what depends on the host, and validates. Its error joins
// every fault found, each naming its key.
func Load(opts Options) (Config, error) {
	v := viper.NewWithOptions(viper.WithDecodeHook(decodeHook))
	v.SetConfigType("yaml")
	// WHERRY_LISTEN_METRICS= turns the listener off: empty is a value.
	v.AllowEmptyEnv(true)
	defaults := Default()
	for _, l := range leaves(&defaults) {
		v.SetDefault(l.key, l.value.Interface())
		if err := v.BindEnv(l.key, EnvName(l.key)); err != nil {
			return Config{}, fmt.Errorf("bind the environment to %s: %w", l.key, err)
		}
	}
	if err := readFile(v, opts.File); err != nil {
		return Config{}, err
	}
	faults := errors.Join(unknownKeys(v.AllKeys()), unknownVariables(os.Environ()), set(v, opts.Set))
	if faults != nil {
		return Config{}, faults
	}
	var c Config
	if err := v.UnmarshalExact(&c); err != nil {
		return Config{}, decodeFaults(err)
	}
	if err := c.resolve(os.Hostname); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// File gives the file that Load would read, and whether it must exist.
func (o Options) file() (path string, named bool) {
	if o.File != "" {
		return o.File, true
	}
	if path := os.Getenv("WHERRY_CONFIG"); path != "" {
		return path, true
	}
	return DefaultFile, false
}

func readFile(v *viper.Viper, name string) error {
	path, named := Options{File: name}.file()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	if err := v.ReadConfig(f); err != nil {
		return fmt.Errorf("read the configuration %q: %w", path, err)
	}
	return nil
}

// unknownKeys reports the keys that no field answers to. A section without
// content, as when all its lines are comments, is nothing and no fault.
func unknownKeys(got []string) error {
	known := Keys()
	empty := sections(known)
	var faults []error
	slices.Sort(got)
	for _, k := range got {
		if !slices.Contains(known, k) && !empty[k] {
			faults = append(faults, unknown("key", k, known))
		}
	}
	return errors.Join(faults...)
}

// unknownVariables reports variables of the agent's prefix that it does not
// read: a misspelt variable would otherwise do nothing, silently.
func unknownVariables(environ []string) error {
	var known []string
	for _, k := range Keys() {
		known = append(known, EnvName(k))
	}
	var faults []error
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, EnvPrefix) && !slices.Contains(known, name) && !isOther(name) {
			faults = append(faults, unknown("environment variable", name, append(known, otherVariables...)))
		}
	}
	return errors.Join(faults...)
}

func set(v *viper.Viper, pairs []string) error {
	known := Keys()
	var faults []error
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		switch {
		case !found:
			faults = append(faults, fmt.Errorf("%q is not key=value", pair))
		case !slices.Contains(known, key):
			faults = append(faults, unknown("key", key, known))
		default:
			v.Set(key, value)
		}
	}
	return errors.Join(faults...)
}

func unknown(what, name string, known []string) error {
	if near := Nearest(name, known); near != "" {
		return fmt.Errorf("unknown %s %q: did you mean %q?", what, name, near)
	}
	return fmt.Errorf("unknown %s %q", what, name)
}

// resolve fills in what depends on the host and on other keys.
func (c *Config) resolve(hostname func() (string, error)) error {
	if c.Host.Name == "" {
		name, err := hostname()
		if err != nil {
			return fmt.Errorf("host.name: not given, and the machine has no name: %w", err)
		}
		c.Host.Name = name
	}
	if c.Listen.TCP == AutoTCP {
		c.Listen.TCP = ""
		if c.TLS.Configured() {
			c.Listen.TCP = DefaultTCP
		}
	}
	if c.Migration.LibvirtURI == "" {
		u := url.URL{Scheme: "qemu+tls", Host: c.Host.Name, Path: "/system"}
		c.Migration.LibvirtURI = u.String()
	}
	return nil
}
