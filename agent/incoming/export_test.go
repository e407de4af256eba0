package incoming

// AtLeaseEnd is atLeaseEnd; held is by whom, "" for not at all.
func AtLeaseEnd(state, reason string, ran bool, held string) string {
	var h *hold
	if held != "" {
		h = &hold{BySource: held == "source"}
	}
	end, _ := atLeaseEnd(state, reason, ran, h)
	return string(end)
}

// Relink is relink.
var Relink = relink
