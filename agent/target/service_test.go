package target_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	agenttarget "github.com/wherry-kvm/wherry/agent/target"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume/target"
)

// connector keeps what is connected; it knows the size of LUN 1 only.
type connector struct {
	fail      error
	connected map[int]bool
	seen      []target.Target
}

func (c *connector) Connect(_ context.Context, t target.Target) (string, error) {
	c.seen = append(c.seen, t)
	if t.LUN == 13 {
		return "", c.fail
	}
	c.connected[t.LUN] = true
	return "/dev/lun", nil
}

func (c *connector) Disconnect(_ context.Context, t target.Target) error {
	delete(c.connected, t.LUN)
	return nil
}

func (c *connector) VirtualSize(_ context.Context, t target.Target) (int64, error) {
	if t.LUN != 1 {
		return 0, errors.New("cannot tell")
	}
	return 42, nil
}

func lun(n int) api.Target {
	return api.Target{Type: "iscsi", Portal: "p", IQN: "iqn.x", LUN: n, CHAP: &api.CHAP{User: "u", Secret: "s"}}
}

func TestModify(t *testing.T) {
	c := &connector{connected: map[int]bool{}}
	s := agenttarget.Service{Set: target.Set{"iscsi": c}}
	got, err := s.Modify(t.Context(), api.TargetsRequest{Add: true, Targets: []api.Target{lun(1), lun(2)}})
	want := api.TargetsResponse{Connected: []api.ConnectedTarget{{Index: 0, Path: "/dev/lun", Size: 42}, {Index: 1, Path: "/dev/lun"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, answer (-want +got):\n%s", err, diff)
	}
	if first := c.seen[0]; first.SecretName != "wherry iscsi://p:3260/iqn.x/1" {
		t.Errorf("the login is kept as %q; want the name that every host gives it", first.SecretName)
	}
	if first := c.seen[0]; first.CHAP == nil || first.CHAP.Secret != "s" || first.IQN != "iqn.x" || first.Portal != "p" {
		t.Errorf("connected %v; want the login and every field", first)
	}
	got, err = s.Modify(t.Context(), api.TargetsRequest{Targets: []api.Target{lun(1), lun(2)}})
	if err != nil || got.Connected == nil || len(c.connected) != 0 {
		t.Errorf("removed: %+v, %v; still connected %v", got, err, c.connected)
	}
}

// One that fails takes its siblings back, keeps the cause's words and names itself.
func TestModifyFails(t *testing.T) {
	cause := errors.New("login failed: initiator not allowed")
	c := &connector{connected: map[int]bool{}, fail: cause}
	s := agenttarget.Service{Set: target.Set{"iscsi": c}}
	_, err := s.Modify(t.Context(), api.TargetsRequest{Add: true, Targets: []api.Target{lun(1), lun(13)}})
	p := api.AsProblem(err)
	if p == nil || p.Code != "target-failed" || !errors.Is(err, cause) || !strings.Contains(p.Detail, cause.Error()) {
		t.Fatalf("error %v", err)
	}
	if len(p.Fields) != 1 || p.Fields[0].Field != "targets[1]" || p.Fields[0].Detail != cause.Error() {
		t.Errorf("fields %+v; want the index and the cause", p.Fields)
	}
	if len(c.connected) != 0 {
		t.Errorf("still connected: %v", c.connected)
	}
	_, err = s.Modify(t.Context(), api.TargetsRequest{Add: true, Targets: []api.Target{{Type: "tape"}}})
	if p := api.AsProblem(err); p == nil || p.Hint == "" || !errors.Is(err, target.ErrUnknownType) {
		t.Errorf("unknown type: %v", err)
	}
	if _, err = s.Modify(t.Context(), api.TargetsRequest{Targets: []api.Target{{Type: "tape"}}}); api.CodeOf(err) != "target-failed" {
		t.Errorf("removing an unknown type: %v", err)
	}
}
