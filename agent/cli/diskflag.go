package cli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

// diskFlags collects the --disk flags of a migration.
type diskFlags []api.DiskRequest

func (d *diskFlags) String() string { return "" }

// Type names the value in the usage text.
func (d *diskFlags) Type() string { return "KEY=VALUE,..." }

// Set reads one disk.
func (d *diskFlags) Set(text string) error {
	words, err := splitWords(text)
	if err != nil {
		return err
	}
	disk := api.DiskRequest{Target: words.take("target"), Format: words.take("format")}
	if disk.Target == "" {
		return errors.New("target=, the disk's name, is missing")
	}
	if kind := words.take("connect"); kind != "" {
		if disk.Connect, err = readTarget(kind, words); err != nil {
			return err
		}
	} else {
		disk.Pool = words.take("pool")
	}
	if err := words.leftover(); err != nil {
		return err
	}
	*d = append(*d, disk)
	return nil
}

// words are the key=value parts of an argument; take removes what is known.
type words struct {
	values map[string]string
	known  []string
}

func splitWords(text string) (*words, error) {
	w := &words{values: map[string]string{}}
	for part := range strings.SplitSeq(text, ",") {
		key, value, found := strings.Cut(part, "=")
		if !found || key == "" || value == "" {
			return nil, fmt.Errorf("%q is not key=value", part)
		}
		if _, twice := w.values[key]; twice {
			return nil, fmt.Errorf("%s= is given twice", key)
		}
		w.values[key] = value
	}
	return w, nil
}

func (w *words) take(key string) string {
	value := w.values[key]
	delete(w.values, key)
	w.known = append(w.known, key)
	return value
}

// leftover reports a key that nobody took.
func (w *words) leftover() error {
	for key := range w.values {
		if near := config.Nearest(key, w.known); near != "" {
			return fmt.Errorf("unknown key %q: did you mean %q?", key, near)
		}
		return fmt.Errorf("unknown key %q: say %s", key, strings.Join(w.known, ", "))
	}
	return nil
}

// readTarget takes the keys of a storage target of the given type. A CHAP
// secret is read from a file: an argument is there for every user to see.
func readTarget(kind string, w *words) (*api.Target, error) {
	t := &api.Target{Type: kind}
	var err error
	switch kind {
	case "file":
		t.Path = w.take("path")
	case "iscsi":
		err = readISCSI(t, w)
	case "powerflex":
		t.SystemID, t.VolumeID = w.take("system_id"), w.take("volume_id")
	case "rbd":
		t.Pool, t.Image = w.take("pool"), w.take("image")
		if monitors := w.take("monitors"); monitors != "" {
			t.Monitors = strings.Split(monitors, ";")
		}
	default:
		return nil, fmt.Errorf("unknown type of target %q: say file, iscsi, powerflex or rbd", kind)
	}
	return t, err
}

func readISCSI(t *api.Target, w *words) error {
	t.Portal, t.IQN = w.take("portal"), w.take("iqn")
	lun, user, file := w.take("lun"), w.take("chap_user"), w.take("chap_secret_file")
	if lun != "" {
		n, err := strconv.ParseUint(lun, 10, 14)
		if err != nil {
			return fmt.Errorf("lun %q is not a number up to 16383", lun)
		}
		t.LUN = int(n)
	}
	if (user == "") != (file == "") {
		return errors.New("chap_user= and chap_secret_file= belong together")
	}
	if user != "" {
		secret, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read the CHAP secret: %w", err)
		}
		t.CHAP = &api.CHAP{User: user, Secret: strings.TrimRight(string(secret), "\r\n")}
	}
	return nil
}
