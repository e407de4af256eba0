package offline

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wherry-kvm/wherry/agent/shutdown"
	"github.com/wherry-kvm/wherry/http/api"
)

// Who shuts the host down already is waited for as long as that one has, and
// not for ever.
func TestHoldWaitsForWhoHasIt(t *testing.T) {
	const budget = 5 * time.Minute
	for name, c := range map[string]struct {
		by     string
		began  time.Duration // by its clock, from now
		ends   time.Duration // with a result; 0 = it hangs
		want   time.Duration
		joined bool
	}{
		"a command that ends":                {by: "command", ends: 4 * time.Minute, want: 4 * time.Minute, joined: true},
		"a command that hangs":               {by: "command", want: budget + joinGrace},
		"a command, and the clock went back": {by: "command", began: 24 * time.Hour, want: budget + joinGrace},
		"a command, after an older shutdown": {by: "command", began: -24 * time.Hour, want: hungAgent},
		"an agent that hangs":                {by: "agent", want: hungAgent},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				place := shutdown.Place{Dir: t.TempDir()}
				other, err := place.Hold()
				if err != nil {
					t.Fatal(err)
				}
				defer other()
				began := time.Now()
				m := shutdown.Marker{By: c.by, Began: began.Add(c.began), Deadline: began.Add(c.began + budget)}
				if err := place.Write(m); err != nil {
					t.Fatal(err)
				}
				if c.ends > 0 {
					time.AfterFunc(c.ends, func() {
						m.Result = &api.ShutdownResult{By: c.by}
						if err := place.Write(m); err != nil {
							t.Error(err)
						}
						other()
					})
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				release, joined, err := Options{Log: slog.New(slog.DiscardHandler)}.hold(ctx, place)
				if err != nil || (joined != nil) != c.joined {
					t.Errorf("joined %+v, %v", joined, err)
				}
				if release != nil {
					release()
				}
				if took := time.Since(began); took < c.want || took > c.want+time.Second {
					t.Errorf("it took %s; want %s", took, c.want)
				}
			})
		})
	}
}
