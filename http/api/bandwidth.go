package api

import "time"

// Bandwidth is what the migrations from a host may send together, in bytes per
// second; 0 = no limit. It covers their memory and their disk copies, and not the
// templates and layers that other hosts fetch from here, for a migration too:
// those are limited by templates.bandwidth of the host that fetches. What was set
// outlives restarts of the agent, until it is reset to what is configured.
type Bandwidth struct {
	Bandwidth  int64            `json:"bandwidth"`
	Source     string           `json:"source"`           // config or set
	SetBy      string           `json:"set_by,omitempty"` // the certificate's common name, or local
	SetAt      *time.Time       `json:"set_at,omitempty"`
	Configured int64            `json:"configured"` // bytes per second; 0 = no limit
	Shares     []BandwidthShare `json:"shares"`
}

// Sources of a bandwidth.
const (
	BandwidthConfigured = "config"
	BandwidthSet        = "set"
)

// BandwidthShare is what one running migration has of it, or one content that
// another host fetches.
type BandwidthShare struct {
	Operation string `json:"operation,omitempty"`
	Content   string `json:"content,omitempty"` // a template's id, or a layer's digest
	Bandwidth int64  `json:"bandwidth"`         // bytes per second; 0 = no limit
}

// BandwidthRequest changes what the migrations from a host may send together,
// also of those that run. It has to be said, 0 too.
type BandwidthRequest struct {
	Bandwidth *int64 `json:"bandwidth"`
}
