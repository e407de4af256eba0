package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/agent/migrate"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// Libvirt's event loop is made for the length of a process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("libvirt.org/go/libvirt.EventRunDefaultImpl"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// configured is a configuration for libvirt's own test driver.
func configured(t testing.TB) config.Config {
	c := config.Default()
	dir := t.TempDir()
	c.StateDir, c.Listen = filepath.Join(dir, "state"), config.Listen{Socket: filepath.Join(dir, "agent.sock")}
	c.Hypervisor.URI = "test:///default"
	c.Host.Name = "a"
	return c
}

// The whole agent, on libvirt's test driver: it comes up, answers, and leaves
// when it is told to; twice, on the same state.
func TestRun(t *testing.T) {
	c := configured(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Run(ctx, c, "v1", quiet) }()
		agent, err := client.New("unix:"+c.Listen.Socket, client.TLS{})
		must(t, err)
		deadline := time.Now().Add(20 * time.Second)
		var instances []api.Instance
		for len(instances) == 0 {
			if instances, err = agent.Instances(t.Context(), ""); err != nil && time.Now().After(deadline) {
				t.Fatalf("no answer: %v", err)
			}
		}
		if instances[0].Name != "test" || instances[0].Managed {
			t.Errorf("instances %+v", instances)
		}
		host, err := agent.Host(t.Context())
		if err != nil || host.Name != "a" || host.Versions.Agent != "v1" {
			t.Errorf("host %+v, %v", host, err)
		}
		_, err = agent.Plan(t.Context(), api.Ref{Name: "test"}, api.MigrateRequest{Destination: "https://b:8470"})
		if p := api.AsProblem(err); p == nil || p.Code != "precondition" || !strings.Contains(p.Hint, "tls.cert") {
			t.Errorf("plan without certificates: %+v", p)
		}
		agent.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

func TestRunFails(t *testing.T) {
	c := configured(t)
	must(t, os.WriteFile(c.StateDir, nil, 0o600))
	if err := Run(t.Context(), c, "v1", quiet); err == nil || !strings.Contains(err.Error(), "state_dir") {
		t.Errorf("state folder that is a file: %v", err)
	}
	c = configured(t)
	must(t, os.MkdirAll(filepath.Join(c.StateDir, "wherry.db"), 0o700))
	if err := Run(t.Context(), c, "v1", quiet); err == nil || !strings.Contains(err.Error(), "store") {
		t.Errorf("store that is a folder: %v", err)
	}
	c = configured(t)
	c.Templates.AllowAddresses = []string{"10.0.0.0"}
	if err := Run(t.Context(), c, "v1", quiet); err == nil || !strings.Contains(err.Error(), "templates.allow_addresses") {
		t.Errorf("a network that is none: %v", err)
	}
}

func TestPeersNeedAnIdentity(t *testing.T) {
	p := newPeers(config.Default(), quiet, nil)
	defer p.close()
	if _, err := p.migration("https://b:8470"); !errors.Is(err, migrate.ErrNoIdentity) {
		t.Errorf("error %v", err)
	}
	if _, err := p.template("https://b:8470"); !errors.Is(err, migrate.ErrNoIdentity) {
		t.Errorf("error %v", err)
	}
}

// Callers tell by one code that no answer came.
func TestUnreachable(t *testing.T) {
	problem := api.NewProblem("busy", "held")
	for _, c := range []struct {
		err  error
		code string
	}{
		{fmt.Errorf("facts: %w", &client.Unreachable{Address: "b", Stage: client.StageDial, Err: errors.New("refused")}), "peer-unreachable"},
		{fmt.Errorf("facts: %w", context.DeadlineExceeded), "peer-unreachable"},
		{problem, "busy"},
		{context.Canceled, ""},
		{nil, ""},
	} {
		_, err := within(t.Context(), time.Minute, func(ctx context.Context) (int, error) {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a call without a deadline")
			}
			return 0, c.err
		})
		if api.CodeOf(err) != c.code || !errors.Is(err, c.err) {
			t.Errorf("%v became %v; want code %q", c.err, err, c.code)
		}
	}
}

func TestAddresses(t *testing.T) {
	allow, err := addresses([]string{"10.1.0.0/16", "fd00::/8"})
	must(t, err)
	for ip, want := range map[string]bool{"10.1.2.3": true, "10.2.0.1": false, "fd00::1": true, "127.0.0.1": false, "8.8.8.8": true} {
		if got := allow(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
}

func TestSelfURL(t *testing.T) {
	tls := config.TLS{CA: "ca", Cert: "cert", Key: "key"}
	for _, c := range []struct {
		tcp, name string
		tls       config.TLS
		want      string
	}{
		{":8470", "a", tls, "https://a:8470"},
		{"[::]:8470", "2001:db8::1", tls, "https://[2001:db8::1]:8470"},
		{"", "a", tls, ""},
		{":8470", "", tls, ""},
		{":8470", "a", config.TLS{}, ""},
	} {
		d := &daemon{config: config.Config{Listen: config.Listen{TCP: c.tcp}, Host: config.Host{Name: c.name}, TLS: c.tls}}
		if got := d.selfURL(); got != c.want {
			t.Errorf("%q on %q: %q; want %q", c.name, c.tcp, got, c.want)
		}
	}
}

// An event's project is the record's.
func TestProjectOfAnEvent(t *testing.T) {
	d := &daemon{records: record.Dir(t.TempDir())}
	must(t, d.records.Write(api.Record{Project: "blue", Name: "vm1", UUID: "u"}))
	if d.project("vm1") != "blue" || d.project("vm2") != api.DefaultProject {
		t.Errorf("projects %q, %q", d.project("vm1"), d.project("vm2"))
	}
}
