package operation

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func TestIDsSortInTheOrderOfCreation(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	full := ulid.MustParse("01M7YYCGCSZZZZZZZZZZZZZZZZ")
	for name, tt := range map[string]struct {
		last ulid.ULID
		now  time.Time
	}{
		"first":                {now: now},
		"later":                {last: full, now: ulid.Time(full.Time() + 5)},
		"same millisecond":     {last: ulid.MustParse("01M7YYCGCSD0GYYM8D5Q1ZH3D0"), now: ulid.Time(full.Time())},
		"carry":                {last: ulid.MustParse("01M7YYCGCSD0GYYM8D5Q1ZZZZZ"), now: ulid.Time(full.Time())},
		"clock set back":       {last: full, now: now.AddDate(-1, 0, 0)},
		"no room in this tick": {last: full, now: ulid.Time(full.Time())},
	} {
		id, err := nextID(tt.last, tt.now)
		if err != nil || id.Compare(tt.last) <= 0 || id.String() <= tt.last.String() && tt.last != (ulid.ULID{}) {
			t.Errorf("%s: %s after %s, %v", name, id, tt.last, err)
		}
	}
	id, err := nextID(ulid.ULID{}, now)
	if err != nil || !ulid.Time(id.Time()).Equal(now) {
		t.Errorf("time of %s is %s, %v", id, ulid.Time(id.Time()), err)
	}
}
