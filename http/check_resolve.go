package http

import "github.com/wherry-kvm/wherry/http/api"

func checkResolve(r api.ResolveRequest) (f faults) {
	f.given("keep", r.Keep)
	f.oneOf("keep", r.Keep, api.SideSource, api.SideDestination)
	f.oneOf("other_host", r.OtherHost, api.OtherDown, api.OtherHasIt)
	return f
}

func checkSettle(r api.SettleRequest) (f faults) {
	f.given("act", r.Act)
	f.oneOf("act", r.Act, api.SettleHold, api.SettleResume, api.SettleEnd, api.SettleRelease)
	return f
}
