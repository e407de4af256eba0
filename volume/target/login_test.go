package target_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/wherry-kvm/wherry/volume/target"
)

// secrets is a host's store of passwords.
type secrets struct {
	kept map[string]string
	fail error
}

func (s *secrets) HasSecret(_ context.Context, name string) (bool, error) {
	_, ok := s.kept[name]
	return ok, s.fail
}

func (s *secrets) SetSecret(_ context.Context, name, password string) error {
	if s.fail == nil {
		s.kept[name] = password
	}
	return s.fail
}

func (s *secrets) RemoveSecret(_ context.Context, name string) error {
	delete(s.kept, name)
	return s.fail
}

// reachable is a storage system that admits everybody but those with a wrong secret.
type reachable struct{}

func (reachable) Run(_ context.Context, _ string, args ...string) ([]byte, error) {
	if strings.Contains(strings.Join(args, " "), "lun=13") {
		return nil, errors.New("login failed")
	}
	return []byte(`{"virtual-size": 7}`), nil
}

func (reachable) Stream(context.Context, func([]byte), string, ...string) error { return nil }

func login(lun int) target.Target {
	return target.Target{Type: target.TypeISCSI, Portal: "h", IQN: "iqn.2024-01.org:x", LUN: lun, SecretName: "login " + string(rune('0'+lun)),
		CHAP: &target.CHAP{User: "u", Secret: "s"}}
}

// A password is kept for as long as its target is connected, and by no call
// that failed.
func TestLoginsAreKept(t *testing.T) {
	kept := &secrets{kept: map[string]string{}}
	set := target.Set{target.TypeISCSI: target.ISCSI{Runner: reachable{}, Secrets: kept}}
	open := login(2)
	open.CHAP = nil
	for range 2 {
		if _, err := set.Connect(t.Context(), []target.Target{login(1), open}); err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{"login 1": "s"}; !maps.Equal(kept.kept, want) {
			t.Errorf("kept %v; want %v", kept.kept, want)
		}
	}
	if _, err := set.Connect(t.Context(), []target.Target{login(1), login(3), login(13)}); err == nil {
		t.Error("a refused login was taken")
	}
	if want := map[string]string{"login 1": "s"}; !maps.Equal(kept.kept, want) {
		t.Errorf("after a failure %v are kept; want what was there before, %v", kept.kept, want)
	}
	forgotten := login(1)
	forgotten.CHAP = nil // who disconnects need not know it
	for range 2 {
		if err := set.Disconnect(t.Context(), []target.Target{forgotten}); err != nil || len(kept.kept) != 0 {
			t.Errorf("kept %v, %v; want nothing", kept.kept, err)
		}
	}
}

func TestLoginThatCannotBeKept(t *testing.T) {
	down := errors.New("libvirt is not connected")
	c := target.ISCSI{Runner: reachable{}, Secrets: &secrets{kept: map[string]string{}, fail: down}}
	if _, err := c.Connect(t.Context(), login(1)); !errors.Is(err, down) {
		t.Errorf("error %v; want %v", err, down)
	}
}
