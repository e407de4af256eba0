package daemon

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/wherry-kvm/wherry/agent/chains"
	"github.com/wherry-kvm/wherry/agent/metrics"
	"github.com/wherry-kvm/wherry/agent/templates"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template"
)

// authorities reads the certificates that sign those of image servers, besides
// the host's own; nil where none are configured.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("templates.ca: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("templates.ca: the host's certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("templates.ca: %q holds no certificate", path)
	}
	return pool, nil
}

// templateState gives the metrics what the service knows of its templates,
// from memory.
func templateState(s *templates.Service) metrics.TemplateState {
	var out metrics.TemplateState
	files := map[string]bool{}
	for _, t := range s.Registry.List() {
		refs := map[string]int{}
		for _, r := range s.Refs.Known(t) {
			refs[r.Pool]++
		}
		for _, c := range t.Copies {
			m := metrics.TemplateCopy{Template: t.ID, Pool: c.Pool, State: c.State, Removed: t.Removed(), Refs: refs[c.Pool]}
			if c.FailedSince != nil {
				m.FailedSince = *c.FailedSince
			}
			out.Copies = append(out.Copies, m)
			if c.State == template.StateReady && !files[c.Path] {
				files[c.Path] = true
				out.Apparent += t.Size
				out.Allocated += c.Allocated
			}
		}
	}
	out.Unowned = len(s.Registry.Unowned())
	out.Disagreements, out.Unread = s.Refs.Counts()
	return out
}

// chains reads what the disks of this host stand on.
func (d *daemon) chains(s *services) *chains.Reader {
	return &chains.Reader{Hypervisor: d.hv, Records: d.records,
		Pools: func(ctx context.Context) ([]api.Pool, error) {
			h, err := s.host.Host(ctx)
			return h.Pools, err
		},
		IsCopy: func(path string) bool {
			_, _, ok := s.templates.ByPath(path)
			return ok
		}}
}
