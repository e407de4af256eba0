package harness

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestUntilEndsWithTheLastReason(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason, stopped := errors.New("block 3 of 10"), errors.New("test stopped")
	calls := 0
	err := Until(ctx, "ten blocks", func(context.Context) error {
		if calls++; calls == 2 {
			cancel(stopped)
		}
		return reason
	})
	if !errors.Is(err, reason) || !errors.Is(err, stopped) || !strings.Contains(err.Error(), "ten blocks") {
		t.Errorf("got %v", err)
	}
}

func TestUntilReturnsAtSuccess(t *testing.T) {
	calls := 0
	err := Until(t.Context(), "the third call", func(context.Context) error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

func TestVagrantScripts(t *testing.T) {
	for _, test := range []struct {
		verb string
		args []string
		want string
	}{
		{"agent", []string{"restart"}, "systemctl restart wherry"},
		{"libvirtd", []string{"kill"}, "systemctl kill -s KILL libvirtd; systemctl stop libvirtd"},
		{"link", []string{"down"}, "tc qdisc replace dev eth1 root blackhole"},
		{"rate", []string{"200mbit"}, "tc qdisc replace dev eth1 root tbf rate 200mbit burst 1mb latency 50ms"},
	} {
		if got, err := (vagrant{}).script(test.verb, test.args); err != nil || got != test.want {
			t.Errorf("%s %v: got %q, %v; want %q", test.verb, test.args, got, err, test.want)
		}
	}
	if _, err := (vagrant{}).script("agent", []string{"start", "FAULT=x"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an agent's environment: got %v, want ErrUnsupported", err)
	}
	if got := quote([]string{"a b", "it's"}); got != `'a b' 'it'\''s'` {
		t.Errorf("quote: got %s", got)
	}
}
