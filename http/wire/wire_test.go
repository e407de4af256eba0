package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/wire"
)

func TestUnmarshal(t *testing.T) {
	type below struct {
		Size int64 `json:"size"`
	}
	type top struct {
		Name  string            `json:"name"`
		Count uint8             `json:"count"`
		On    bool              `json:"on"`
		Wait  api.Duration      `json:"wait"`
		At    time.Time         `json:"at"`
		Any   json.RawMessage   `json:"any"`
		Maybe *below            `json:"maybe"`
		List  []below           `json:"list"`
		Map   map[string]string `json:"map"`
		Own   string            `json:"-"`
	}
	for _, row := range []struct {
		in, field string
		ok        bool
	}{
		{`{}`, "", true},
		{` {"name":"a","count":255,"on":true,"wait":"1s","at":"2026-11-21T10:00:00Z","any":{"x":[1]},"maybe":{"size":1},"list":[{"size":2}],"map":{"Any-Name":"v"}} `, "", true},
		{`{"maybe":null,"list":null,"map":null,"any":null}`, "", true},
		{`{"wait":null}`, "wait", false},
		{`{"count":256}`, "count", false},
		{`{"count":-1}`, "count", false},
		{`{"on":"yes"}`, "on", false},
		{`{"at":"noon"}`, "at", false},
		{`{"maybe":{"sise":1}}`, "maybe.sise", false},
		{`{"maybe":[]}`, "maybe", false},
		{`{"list":[{"size":1},{"size":"2"}]}`, "list[1].size", false},
		{`{"list":[null]}`, "list[0]", false},
		{`{"list":{}}`, "list", false},
		{`{"map":{"a":1}}`, "map.a", false},
		{`{"map":{"a":"1","a":"2"}}`, "map.a", false},
		{`{"Own":"x"}`, "Own", false},
		{`{"-":"x"}`, "-", false},
		{`{"NAME":"x"}`, "NAME", false},
		{`{"name":"a","name":"b"}`, "name", false},
		{`{"name":"a"}x`, "", false},
		{``, "", false},
		{`"a"`, "", false},
	} {
		var v top
		err := wire.Unmarshal([]byte(row.in), &v)
		if (err == nil) != row.ok {
			t.Errorf("%s: %v", row.in, err)
			continue
		}
		if e, ok := errors.AsType[*wire.FieldError](err); err != nil && (!ok || e.Field != row.field) {
			t.Errorf("%s: names %v, not %q", row.in, err, row.field)
		}
	}
}

func TestDeepNesting(t *testing.T) {
	type node struct {
		Next []json.RawMessage `json:"next"`
	}
	type tree struct {
		Down []tree `json:"down"`
	}
	if err := wire.Unmarshal([]byte(strings.Repeat(`{"down":[`, 1000)+strings.Repeat(`]}`, 1000)), new(tree)); err == nil {
		t.Error("1000 levels were accepted")
	}
	if err := wire.Unmarshal([]byte(`{"next":[`+strings.Repeat(`[`, 20000)+strings.Repeat(`]`, 20000)+`]}`), new(node)); err == nil {
		t.Error("an endless list was accepted")
	}
}

func TestMarshalWritesEmptyLists(t *testing.T) {
	place := api.DiskPlace{Kind: "file"}
	plan := api.Plan{Disks: []api.PlanDisk{{Target: "vda", Destination: &place}}}
	b, err := wire.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"reasons":[]`, `"chain":[]`, `"checks":[]`, `"backing":null`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s is not in %s", want, b)
		}
	}
	if plan.Reasons != nil || plan.Disks[0].Chain != nil {
		t.Error("the value was changed")
	}
	var back api.Plan
	if err := wire.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back.Disks[0].Destination.Kind != "file" {
		t.Errorf("came back as %+v", back)
	}
}

// FuzzUnmarshal looks for bodies that are accepted though encoding/json, told
// to be strict, refuses them, or that mean another thing when sent on.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"destination":"https://b","disks":[{"target":"vda","connect":{"type":"iscsi","lun":1,"chap":{"user":"u","secret":"s"}}}]}`,
		`{"timeout":"1s","bandwidth":1e3}`, `{"disks":null}`, `[{}]`, `{"destination":"\ud800"}`, `{"mode":"a","Mode":"b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v api.MigrateRequest
		if wire.Unmarshal(b, &v) != nil {
			return
		}
		strict := json.NewDecoder(bytes.NewReader(b))
		strict.DisallowUnknownFields()
		var want api.MigrateRequest
		if err := strict.Decode(&want); err != nil {
			t.Fatalf("%q is accepted; encoding/json: %v", b, err)
		}
		sent, err := wire.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var back api.MigrateRequest
		if err := wire.Unmarshal(sent, &back); err != nil {
			t.Fatalf("%q became %q: %v", b, sent, err)
		}
		again, err := wire.Marshal(back)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(sent), string(again)); d != "" {
			t.Fatal(d)
		}
	})
}
