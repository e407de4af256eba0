package daemon

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/agent/budget"
	"github.com/wherry-kvm/wherry/agent/host"
	"github.com/wherry-kvm/wherry/http/api"
)

// hosts speaks for this host, and for what it may send.
type hosts struct {
	*host.Service
	budget *budget.Kept
	now    func() time.Time
	log    *slog.Logger
}

// Bandwidth gives the budget of migrations with its shares.
func (h hosts) Bandwidth(context.Context) (api.Bandwidth, error) {
	out := api.Bandwidth{Bandwidth: h.budget.Total(), Source: api.BandwidthConfigured, Shares: []api.BandwidthShare{}}
	set, configured := h.budget.Origin()
	if out.Configured = configured; set != nil {
		out.Source, out.SetBy, out.SetAt = api.BandwidthSet, set.By, &set.At
	}
	shares := h.budget.Shares()
	for _, id := range slices.Sorted(maps.Keys(shares)) {
		s := api.BandwidthShare{Operation: id, Bandwidth: shares[id]}
		if content, is := budget.Content(id); is {
			s.Operation, s.Content = "", content
		}
		out.Shares = append(out.Shares, s)
	}
	return out, nil
}

// SetBandwidth changes the budget, for those that run too, and for good.
func (h hosts) SetBandwidth(ctx context.Context, bytes int64, by string) (api.Bandwidth, error) {
	h.log.Info("the bandwidth of migrations is changed", "from", h.budget.Total(), "to", bytes, "by", by)
	if err := h.budget.Change(budget.Setting{Bandwidth: bytes, By: by, At: h.now().UTC()}); err != nil {
		return api.Bandwidth{}, api.NewProblem("internal", "%w", err)
	}
	return h.Bandwidth(ctx)
}

// ResetBandwidth goes back to the configured budget.
func (h hosts) ResetBandwidth(ctx context.Context) (api.Bandwidth, error) {
	h.log.Info("the bandwidth of migrations is as configured again", "from", h.budget.Total())
	if err := h.budget.Reset(); err != nil {
		return api.Bandwidth{}, api.NewProblem("internal", "%w", err)
	}
	return h.Bandwidth(ctx)
}
