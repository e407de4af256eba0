package target_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/volume/target"
)

// listen listens on a free port of this host.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// silent listens, and never says a word. It returns the address.
func silent(t *testing.T) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// fake connects paths in memory. It cannot tell what was connected before.
type fake struct {
	connected []string
	calls     []string
	failing   map[string]error // by path, on connect
	stuck     map[string]error // by path, on disconnect
	noPath    bool
}

func (f *fake) Connect(_ context.Context, t target.Target) (string, error) {
	f.calls = append(f.calls, "+"+t.Path)
	if err := f.failing[t.Path]; err != nil {
		return "", err
	}
	if !slices.Contains(f.connected, t.Path) {
		f.connected = append(f.connected, t.Path)
	}
	if f.noPath {
		return "", nil
	}
	return "/dev/" + t.Path, nil
}

func (f *fake) Disconnect(ctx context.Context, t target.Target) error {
	f.calls = append(f.calls, "-"+t.Path)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := f.stuck[t.Path]; err != nil {
		return err
	}
	f.connected = slices.DeleteFunc(f.connected, func(p string) bool { return p == t.Path })
	return nil
}

// probing is a fake that can tell.
type probing struct{ *fake }

func (f probing) Connected(_ context.Context, t target.Target) (bool, error) {
	return slices.Contains(f.connected, t.Path), nil
}

func at(paths ...string) []target.Target {
	var out []target.Target
	for _, p := range paths {
		out = append(out, target.Target{Type: "fake", Path: p})
	}
	return out
}

var errCause = errors.New("login failed: no such unit")

func TestSetConnect(t *testing.T) {
	f := &fake{}
	got, err := target.Set{"fake": f}.Connect(t.Context(), at("a", "b", "a"))
	want := []target.Connected{{Index: 0, Path: "/dev/a"}, {Index: 1, Path: "/dev/b"}, {Index: 2, Path: "/dev/a"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, connected (-want +got):\n%s", err, diff)
	}
}

func TestSetConnectUndoes(t *testing.T) {
	tests := map[string]struct {
		before []string
		probes bool
		ask    []string
		calls  []string
		after  []string
	}{
		"the siblings, last first":            {nil, true, []string{"a", "b", "bad", "c"}, []string{"+a", "+b", "+bad", "-bad", "-b", "-a"}, []string{}},
		"not what was connected before":       {[]string{"a"}, true, []string{"a", "b", "bad"}, []string{"+a", "+b", "+bad", "-bad", "-b"}, []string{"a"}},
		"one that is named twice, once":       {nil, true, []string{"a", "a", "bad"}, []string{"+a", "+a", "+bad", "-bad", "-a"}, []string{}},
		"twice, and also connected before":    {[]string{"a"}, true, []string{"a", "a", "bad"}, []string{"+a", "+a", "+bad", "-bad"}, []string{"a"}},
		"all, if the connector cannot tell":   {nil, false, []string{"a", "bad"}, []string{"+a", "+bad", "-bad", "-a"}, []string{}},
		"nothing but itself, if it was first": {nil, true, []string{"bad", "a"}, []string{"+bad", "-bad"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := &fake{connected: tt.before, failing: map[string]error{"bad": errCause}}
			set := target.Set{"fake": f}
			if tt.probes {
				set["fake"] = probing{f}
			}
			got, err := set.Connect(t.Context(), at(tt.ask...))
			index, ok := errors.AsType[*target.IndexError](err)
			if got != nil || !ok || index.Index != slices.Index(tt.ask, "bad") || index.Target.Path != "bad" || !errors.Is(err, errCause) {
				t.Errorf("connected %v, %v", got, err)
			}
			if diff := cmp.Diff(tt.calls, f.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.after, f.connected); diff != "" {
				t.Errorf("connected after (-want +got):\n%s", diff)
			}
		})
	}
}

// The undo runs although the context has ended, and an undo that fails is told.
func TestSetConnectUndoAfterTheEnd(t *testing.T) {
	errStuck := errors.New("device is busy")
	f := &fake{stuck: map[string]error{"b": errStuck}}
	ctx, cancel := context.WithCancel(t.Context())
	f.failing = map[string]error{"bad": errCause}
	set := target.Set{"fake": cancelling{probing{f}, "bad", cancel}}
	_, err := set.Connect(ctx, at("a", "b", "bad"))
	if !errors.Is(err, errCause) || !errors.Is(err, errStuck) {
		t.Errorf("error %v; want both causes", err)
	}
	if diff := cmp.Diff([]string{"b"}, f.connected); diff != "" {
		t.Errorf("connected after (-want +got):\n%s", diff)
	}
}

// cancelling ends the context when it comes to a path.
type cancelling struct {
	probing
	path   string
	cancel func()
}

func (c cancelling) Connect(ctx context.Context, t target.Target) (string, error) {
	if t.Path == c.path {
		c.cancel()
	}
	return c.probing.Connect(ctx, t)
}

func TestSetConnectWithoutAPath(t *testing.T) {
	f := &fake{noPath: true}
	if _, err := (target.Set{"fake": f}).Connect(t.Context(), at("a")); !errors.Is(err, target.ErrNoPath) {
		t.Errorf("error %v; want ErrNoPath", err)
	}
	if len(f.connected) != 0 {
		t.Errorf("still connected: %q", f.connected)
	}
}

func TestSetUnknownType(t *testing.T) {
	f := &fake{}
	set := target.Set{"fake": f}
	_, err := set.Connect(t.Context(), append(at("a"), target.Target{Type: "fcoe"}))
	if index, ok := errors.AsType[*target.IndexError](err); !ok || index.Index != 1 || !errors.Is(err, target.ErrUnknownType) {
		t.Errorf("error %v", err)
	}
	if len(f.connected) != 0 {
		t.Errorf("still connected: %q", f.connected)
	}
}

func TestSetDisconnectTriesAll(t *testing.T) {
	first, third := errors.New("first"), errors.New("third")
	f := &fake{connected: []string{"a", "b", "c"}, stuck: map[string]error{"a": first, "c": third}}
	err := target.Set{"fake": f}.Disconnect(t.Context(), append(at("a", "b", "c"), target.Target{Type: "fcoe"}))
	for _, want := range []error{first, third, target.ErrUnknownType} {
		if !errors.Is(err, want) {
			t.Errorf("error %v lacks %v", err, want)
		}
	}
	if diff := cmp.Diff([]string{"a", "c"}, f.connected); diff != "" {
		t.Errorf("connected after (-want +got):\n%s", diff)
	}
}

func TestSetVirtualSize(t *testing.T) {
	set := target.Set{"fake": &fake{}, target.TypeRBD: target.RBD{Runner: fakeCeph{"p/i": mib}}}
	for _, tt := range []struct {
		target target.Target
		want   int64
	}{{at("a")[0], 0}, {target.Target{Type: target.TypeRBD, Pool: "p", Image: "i"}, mib}} {
		if got, err := set.VirtualSize(t.Context(), tt.target); err != nil || got != tt.want {
			t.Errorf("%v: size %d, %v; want %d", tt.target, got, err, tt.want)
		}
	}
	if _, err := set.VirtualSize(t.Context(), target.Target{Type: "fcoe"}); !errors.Is(err, target.ErrUnknownType) {
		t.Errorf("error %v; want ErrUnknownType", err)
	}
}

func TestIndexErrorNamesTheTarget(t *testing.T) {
	for _, tt := range []struct {
		target target.Target
		want   string
	}{
		{target.Target{Type: target.TypeISCSI, Portal: "nas", IQN: "iqn.x", LUN: 3}, `target 2 (iscsi "nas/iqn.x/3"): ` + errCause.Error()},
		{target.Target{Type: target.TypePowerFlex, SystemID: "a", VolumeID: "b"}, `target 2 (powerflex "a-b"): ` + errCause.Error()},
		{target.Target{Type: target.TypeFile, Path: "/p"}, `target 2 (file "/p"): ` + errCause.Error()},
		{target.Target{Type: target.TypeRBD, Pool: "p", Image: "i"}, `target 2 (rbd "p/i"): ` + errCause.Error()},
		{target.Target{Type: "fcoe"}, `target 2 (target of type "fcoe"): ` + errCause.Error()},
	} {
		err := fmt.Errorf("connect: %w", &target.IndexError{Index: 2, Target: tt.target, Err: errCause})
		if want := "connect: " + tt.want; err.Error() != want {
			t.Errorf("%q; want %q", err, want)
		}
	}
}
