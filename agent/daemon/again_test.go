package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/agent/cleanup"
	"github.com/wherry-kvm/wherry/agent/hook"
	"github.com/wherry-kvm/wherry/agent/record"
	agenttarget "github.com/wherry-kvm/wherry/agent/target"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Whoever waits hears of a copy that became ready, and of nothing else.
func TestBell(t *testing.T) {
	b, events := newBell(), make(chan api.Event)
	done := make(chan struct{})
	go func() { defer close(done); b.onReady(events) }()
	first := b.next()
	events <- api.Event{Kind: "instance"}
	events <- api.Event{Kind: "template", Template: &api.TemplateEvent{ID: "a", State: api.CopyFailed}}
	events <- api.Event{Kind: "host"}
	select {
	case <-first:
		t.Error("it rang for nothing")
	default:
	}
	events <- api.Event{Kind: "template", Template: &api.TemplateEvent{ID: "a", State: api.CopyReady}}
	<-first
	close(events)
	<-done
	select {
	case <-b.next():
		t.Error("it rings on")
	default:
	}
}

func TestToldOfStart(t *testing.T) {
	lost := api.NewProblem("precondition", "its template is lost")
	for _, c := range []struct {
		err  error
		last bool
		want string
	}{
		{nil, true, "started again"},
		{errors.New("no route"), false, "not be started again yet: no route"},
		{errors.New("no route"), true, "not tried any more: no route"},
		{lost, false, "when what it stands on was repaired: "},
		{lost, true, "not tried any more: "},
	} {
		if got := toldOfStart(c.err, c.last); !strings.Contains(got, c.want) {
			t.Errorf("%v, last %t: %q; want %q", c.err, c.last, got, c.want)
		}
	}
}

// logins are the passwords that libvirt keeps, and whether it is there.
type logins struct {
	mu   sync.Mutex
	away bool
	has  []string
}

func (l *logins) HasSecret(_ context.Context, name string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.has, name), nil
}

func (l *logins) SetSecret(context.Context, string, string) error { return errors.New("not asked for") }

func (l *logins) RemoveSecret(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return errors.New("libvirt is not connected")
	}
	l.has = slices.DeleteFunc(l.has, func(s string) bool { return s == name })
	return nil
}

func (l *logins) comes() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = false
}

// A login that libvirt keeps, and that its hook could not have it forget, is
// owed: it goes when the agent is started, or, where libvirt is away then, as
// soon as that is back.
func TestALoginIsForgottenLater(t *testing.T) {
	for _, away := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			dir, ref := t.TempDir(), api.Ref{Project: "blue", Name: "vm"}
			login := api.Target{Type: "iscsi", Portal: "p:3260", IQN: "iqn.2024-01.org:x", LUN: 1, CHAP: &api.CHAP{User: "u", Secret: "s"}}
			libvirt := &logins{away: away, has: []string{login.SecretUsage()}}
			c := cleanup.Cleaner{Dir: filepath.Join(dir, "cleanup"), Records: record.Dir(filepath.Join(dir, "records")), Log: quiet, Now: time.Now,
				Runs: func(string, string) (bool, error) { return false, nil }}
			must(t, c.Records.Write(api.Record{Project: "blue", Name: "vm", UUID: "u", PowerState: "running", Targets: []api.Target{login}}))

			// Without an agent: by the hook's other process.
			offline := c
			offline.Targets = hook.WithoutLibvirt{Targets: agenttarget.Connectors{}.Service(nil, nil)}
			ending := hook.Ending{Cleaner: offline, ToRun: func(hook.End) bool { return false },
				Since: func(string, string) (time.Duration, bool, error) { return 0, false, nil }}
			if err := ending.Clean(t.Context(), hook.End{Ref: ref, UUID: "u", At: time.Hour}); err == nil {
				t.Error("nobody is told that the login stays")
			}
			owed := func(want bool) {
				t.Helper()
				synctest.Wait()
				_, is, err := c.Owed(ref)
				keeps, _ := libvirt.HasSecret(t.Context(), login.SecretUsage())
				if is != want || keeps != want || err != nil {
					t.Errorf("owed %t, %v, libvirt keeps the login: %t; want both %t", is, err, keeps, want)
				}
			}
			owed(true)
			if r, err := c.Records.Read(ref); err != nil || r.PowerState != "stopped" {
				t.Errorf("it is %q, %v", r.PowerState, err)
			}

			// The agent's next start.
			began := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			c.Targets = agenttarget.Connectors{}.Service(nil, libvirt)
			events, done := make(chan hypervisor.Event), make(chan struct{})
			go func() { defer close(done); c.Run(ctx, nil, occasions(ctx, nil, events)) }()
			owed(away)
			libvirt.comes()
			owed(away)
			events <- hypervisor.Event{Kind: hypervisor.KindConnection, Detail: "up"}
			owed(false)
			if took := time.Since(began); took != 0 {
				t.Errorf("it took %s", took)
			}
			cancel()
			<-done
		})
	}
}
