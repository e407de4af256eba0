package host_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/wherry-kvm/wherry/agent/host"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

type fake struct {
	host    hypervisor.Host
	pools   []hypervisor.Pool
	domains []hypervisor.Domain
	fail    map[string]error
	calls   map[string]int
	down    bool
}

func (f *fake) call(name string) error { f.calls[name]++; return f.fail[name] }

func (f *fake) Host(context.Context) (hypervisor.Host, error)    { return f.host, f.call("host") }
func (f *fake) Pools(context.Context) ([]hypervisor.Pool, error) { return f.pools, f.call("pools") }
func (f *fake) Domains(context.Context) ([]hypervisor.Domain, error) {
	return f.domains, f.call("domains")
}
func (f *fake) Up() bool { return !f.down }

func TestHost(t *testing.T) {
	dir := t.TempDir()
	f := &fake{calls: map[string]int{}, host: hypervisor.Host{Name: "libvirt-says", UUID: "u"}, pools: []hypervisor.Pool{
		{Name: "default", Type: "dir", Path: dir, Active: true, Capacity: 5, Available: 1},
		{Name: "named", Type: "dir", Path: dir, Active: true},
		{Name: "gone", Type: "dir", Path: dir + "/none", Active: true, Available: 7},
		{Name: "off", Type: "dir", Path: dir, Available: 9},
		{Name: "nfs", Type: "netfs", SourceHosts: []string{"filer"}, SourceDir: "/vol/", Available: 11},
	}, domains: []hypervisor.Domain{{State: hypervisor.Running}, {State: hypervisor.Running}, {State: hypervisor.Shutoff}}}
	s := &host.Service{Hypervisor: f, Version: "v1", Identities: map[string]string{"named": "filer:/x"}}
	got, err := s.Host(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "libvirt-says" || got.Versions.Agent != "v1" || got.Counts["running"] != 2 || got.Counts["shutoff"] != 1 {
		t.Errorf("host %+v", got)
	}
	for name, n := range f.calls {
		if n != 1 {
			t.Errorf("%s was asked for %d times; want once", name, n)
		}
	}
	pools := map[string]api.Pool{}
	for _, p := range got.Pools {
		pools[p.Name] = p
	}
	if pools["default"].Free <= 1 {
		t.Errorf("free %d; want what the file system has now", pools["default"].Free)
	}
	if pools["gone"].Free != 7 || pools["off"].Free != 9 || pools["nfs"].Free != 11 {
		t.Errorf("pools %+v; want libvirt's figures where there is no folder to ask", pools)
	}
	if pools["named"].Identity != "filer:/x" || pools["nfs"].Identity != "nfs:filer:/vol" || pools["default"].Identity != "" {
		t.Errorf("pools %+v; want the configured identity, the network's, and none for a local folder", pools)
	}
	s.Name = "configured"
	if got, _ := s.Host(t.Context()); got.Name != "configured" {
		t.Errorf("name %q", got.Name)
	}
}

func TestHostFails(t *testing.T) {
	for _, call := range []string{"host", "pools", "domains"} {
		for _, c := range []struct {
			err  error
			code string
		}{{fmt.Errorf("list: %w", hypervisor.ErrDown), "libvirt-down"}, {errors.New("internal error"), "libvirt-failed"}} {
			s := &host.Service{Hypervisor: &fake{calls: map[string]int{}, fail: map[string]error{call: c.err}}}
			if _, err := s.Host(t.Context()); api.CodeOf(err) != c.code || !errors.Is(err, c.err) {
				t.Errorf("%s: error %v; want %s", call, err, c.code)
			}
		}
	}
}

func TestReady(t *testing.T) {
	f := &fake{}
	s := &host.Service{Hypervisor: f}
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	f.down = true
	if err := s.Ready(t.Context()); api.CodeOf(err) != "libvirt-down" {
		t.Errorf("error %v", err)
	}
}
