package daemon

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"github.com/wherry-kvm/wherry/agent/budget"
	"github.com/wherry-kvm/wherry/agent/host"
	"github.com/wherry-kvm/wherry/http/api"
)

// hosts speaks for this host, and for what it may send.
type hosts struct {
	*host.Service
	budget *budget.Budget
	log    *slog.Logger
}

// Bandwidth gives the budget of migrations with its shares.
func (h hosts) Bandwidth(context.Context) (api.Bandwidth, error) {
	out := api.Bandwidth{Bandwidth: h.budget.Total(), Shares: []api.BandwidthShare{}}
	shares := h.budget.Shares()
	for _, id := range slices.Sorted(maps.Keys(shares)) {
		out.Shares = append(out.Shares, api.BandwidthShare{Operation: id, Bandwidth: shares[id]})
	}
	return out, nil
}

// SetBandwidth changes the budget, for those that run too.
func (h hosts) SetBandwidth(ctx context.Context, bytes int64) (api.Bandwidth, error) {
	h.log.Info("the bandwidth of migrations is changed", "from", h.budget.Total(), "to", bytes)
	h.budget.Set(bytes)
	return h.Bandwidth(ctx)
}
