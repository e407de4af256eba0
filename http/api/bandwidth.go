package api

// Bandwidth is what the migrations from a host may send together, in bytes per
// second; 0 = no limit. It lasts until the agent is restarted, which goes back
// to its configuration.
type Bandwidth struct {
	Bandwidth int64            `json:"bandwidth"`
	Shares    []BandwidthShare `json:"shares"`
}

// BandwidthShare is what one running migration has of it.
type BandwidthShare struct {
	Operation string `json:"operation"`
	Bandwidth int64  `json:"bandwidth"` // bytes per second; 0 = no limit
}

// BandwidthRequest changes what the migrations from a host may send together,
// also of those that run. It has to be said, 0 too.
type BandwidthRequest struct {
	Bandwidth *int64 `json:"bandwidth"`
}
