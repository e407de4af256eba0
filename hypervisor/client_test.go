package hypervisor_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wherry-kvm/wherry/hypervisor"
)

// The event loop turns for the life of the process; nothing else may stay.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/wherry-kvm/wherry/hypervisor.init.func1.1"),
		goleak.IgnoreAnyFunction("libvirt.org/go/libvirt.EventRunDefaultImpl"))
}

// connect gives a client of libvirt's test driver, which has one running domain
// "test" and one pool "default-pool". At the end it is closed, and must have
// freed everything.
func connect(t *testing.T) (*hypervisor.Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	c := hypervisor.New(hypervisor.Options{URI: "test:///default", Log: slog.New(slog.DiscardHandler)})
	events := c.Subscribe(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		cancel()
		if n := c.Handles(); n != 0 {
			t.Errorf("%d libvirt objects are not freed", n)
		}
	})
	if e := <-events; e.Kind != hypervisor.KindConnection || e.Detail != "up" {
		t.Fatalf("first event %+v", e)
	}
	return c, ctx
}

func TestDomains(t *testing.T) {
	c, ctx := connect(t)
	all, err := c.Domains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	one, err := c.Domain(ctx, "test")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0] != one {
		t.Errorf("the list says %+v, the look-up %+v", all, one)
	}
	if one.Name != "test" || one.State != hypervisor.Running || !one.Persistent || one.VCPUs != 2 || one.Memory != 8<<30 || one.ID != 1 || one.Incoming || !one.Active() {
		t.Errorf("%+v", one)
	}
	byUUID, err := c.DomainByUUID(ctx, one.UUID)
	if err != nil || byUUID != one {
		t.Errorf("by UUID %+v, error %v", byUUID, err)
	}
}

func TestErrorsKeepLibvirtsWords(t *testing.T) {
	c, ctx := connect(t)
	_, err := c.Domain(ctx, "nope")
	if !errors.Is(err, hypervisor.ErrNoDomain) || !strings.Contains(err.Error(), `"nope"`) || !strings.Contains(err.Error(), "Domain not found") || strings.Contains(err.Error(), "virError") {
		t.Errorf("unknown domain: %v", err)
	}
	if err := c.RefreshPool(ctx, "nope"); !errors.Is(err, hypervisor.ErrNoPool) {
		t.Errorf("unknown pool: %v", err)
	}
	if _, err := c.Monitor("test").Run([]byte(`{"execute":"query-block"}`)); !errors.Is(err, hypervisor.ErrUnsupported) {
		t.Errorf("QMP on the test driver: %v", err)
	}
	if err := c.Define(ctx, "<domain>"); err == nil {
		t.Error("broken XML was defined")
	}
}

const xml = `<domain type='test'><name>vm</name><memory>4096</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>`

func TestLife(t *testing.T) {
	c, ctx := connect(t)
	if err := c.Define(ctx, xml); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx, "vm", false); err != nil {
		t.Fatal(err)
	}
	if d, err := c.WaitState(ctx, "vm", hypervisor.Running); err != nil || d.State != hypervisor.Running {
		t.Errorf("started: %+v, error %v", d, err)
	}
	for _, step := range []func(context.Context, string) error{c.Suspend, c.Resume, c.Suspend} {
		if err := step(ctx, "vm"); err != nil {
			t.Error(err)
		}
	}
	if d, err := c.Domain(ctx, "vm"); err != nil || d.State != hypervisor.Paused || d.Reason != "user" {
		t.Errorf("suspended: %+v, error %v", d, err)
	}
	live, err := c.XML(ctx, "vm", false)
	if err != nil || !strings.Contains(live, "<name>vm</name>") {
		t.Errorf("XML %q, error %v", live, err)
	}
	for range 2 { // the second finds it stopped
		if err := c.Destroy(ctx, "vm"); err != nil {
			t.Errorf("destroy: %v", err)
		}
	}
	if d, err := c.Domain(ctx, "vm"); err != nil || d.State != hypervisor.Shutoff || d.ID != -1 || d.Active() {
		t.Errorf("destroyed: %+v, error %v", d, err)
	}
	if err := c.Undefine(ctx, "vm"); err != nil {
		t.Error(err)
	}
	if _, err := c.Domain(ctx, "vm"); !errors.Is(err, hypervisor.ErrNoDomain) {
		t.Errorf("undefined: %v", err)
	}
}

func TestWaitStateIsWokenByTheEvent(t *testing.T) {
	c, ctx := connect(t)
	if err := c.Define(ctx, xml); err != nil {
		t.Fatal(err)
	}
	events := c.Subscribe(ctx)
	got := make(chan error, 1)
	go func() {
		_, err := c.WaitState(ctx, "vm", hypervisor.Running)
		got <- err
	}()
	if err := c.Start(ctx, "vm", false); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	var e hypervisor.Event
	for e.Action != "started" {
		if e = <-events; e.Kind == "" {
			t.Fatal("no event that the domain started")
		}
	}
	if e.Kind != hypervisor.KindLifecycle || e.Name != "vm" || e.Action != "started" || e.Detail != "booted" || e.UUID == "" || e.At.IsZero() {
		t.Errorf("event %+v", e)
	}
	if err := c.Destroy(ctx, "vm"); err != nil {
		t.Error(err)
	}
	if err := c.Undefine(ctx, "vm"); err != nil {
		t.Error(err)
	}
	if _, err := c.WaitState(ctx, "vm", hypervisor.Running); !errors.Is(err, hypervisor.ErrNoDomain) {
		t.Errorf("wait for a domain that is gone: %v", err)
	}
}

func TestWaitStateEndsWithItsContext(t *testing.T) {
	c, ctx := connect(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(why)
	if _, err := c.WaitState(ctx, "test", hypervisor.Shutoff); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestSnapshots(t *testing.T) {
	c, ctx := connect(t)
	names, err := c.Snapshots(ctx, "test")
	if err != nil || len(names) != 0 {
		t.Errorf("%q, error %v", names, err)
	}
}

func TestPools(t *testing.T) {
	c, ctx := connect(t)
	pools, err := c.Pools(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(pools) != 1 || pools[0].Name != "default-pool" || pools[0].Type != "dir" || pools[0].Path != "/default-pool" || !pools[0].Active || pools[0].Capacity == 0 || pools[0].Identity() != "" {
		t.Errorf("%+v", pools)
	}
	if err := c.RefreshPool(ctx, "default-pool"); err != nil {
		t.Error(err)
	}
}

func TestStatsTwice(t *testing.T) {
	c, ctx := connect(t)
	for range 2 { // the second uses the connection of the first
		stats, err := c.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(stats) != 1 || stats[0].Name != "test" || stats[0].State != hypervisor.Running || stats[0].UUID == "" {
			t.Errorf("%+v", stats)
		}
	}
}

func TestHost(t *testing.T) {
	c, ctx := connect(t)
	h, err := c.Host(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if h.Name == "" || h.LibvirtVersion == "" || h.Arch == "" || h.CPUs == 0 || h.Memory == 0 || h.KVM {
		t.Errorf("%+v", h)
	}
}

func TestMigrateSaysWhatLibvirtSays(t *testing.T) {
	c, ctx := connect(t)
	err := c.Migrate(ctx, "test", hypervisor.MigrateParams{DestURI: "test:///default"})
	if !errors.Is(err, hypervisor.ErrUnsupported) || errors.Is(err, hypervisor.ErrAborted) {
		t.Errorf("%v", err)
	}
	if err := c.Migrate(ctx, "nope", hypervisor.MigrateParams{}); !errors.Is(err, hypervisor.ErrNoDomain) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Migrate(ended, "test", hypervisor.MigrateParams{}); !errors.Is(err, hypervisor.ErrAborted) || !errors.Is(err, context.Canceled) {
		t.Errorf("context that had ended: %v", err)
	}
}

func TestDown(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := hypervisor.New(hypervisor.Options{URI: "qemu+unix:///system?socket=" + t.TempDir() + "/none", Log: slog.New(slog.DiscardHandler)})
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for what, call := range map[string]func() error{
		"domains": func() error { _, err := c.Domains(ctx); return err },
		"stats":   func() error { _, err := c.Stats(ctx); return err },
		"migrate": func() error { return c.Migrate(ctx, "x", hypervisor.MigrateParams{}) },
		"blocks":  func() error { _, err := c.Blocks(ctx, "x"); return err },
		"qmp":     func() error { _, err := c.Monitor("x").Run(nil); return err },
		"events":  func() error { _, err := c.Monitor("x").Events(ctx); return err },
		"host":    func() error { _, err := c.Host(ctx); return err },
	} {
		if err := call(); !errors.Is(err, hypervisor.ErrDown) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if c.Up() {
		t.Error("up without a connection")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := c.Handles(); n != 0 {
		t.Errorf("%d handles", n)
	}
}

func TestRunOnce(t *testing.T) {
	c, ctx := connect(t)
	if err := c.Run(ctx); err == nil {
		t.Error("a second Run was accepted")
	}
}
