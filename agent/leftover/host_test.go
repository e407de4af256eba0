package leftover_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-kvm/wherry/agent/leftover"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

const (
	uuid   = "6e0f4b2c-0000-4000-8000-000000000001"
	secret = "6e0f4b2c-0000-4000-8000-00000000000a"
	usage  = "wherry iscsi://10.0.0.1:3260/iqn.2024-01.org.wherry:a/1"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// machine is libvirt, QEMU and the journal of a world.
type machine struct {
	secrets []hypervisor.Secret
	since   time.Time
	rests   []hypervisor.Rest
	domain  hypervisor.Domain
	sent    bool
	claims  []leftover.Claim
	ended   []leftover.Migration
	errs    map[string]error
	did     []string
	events  []string
}

func (m *machine) do(what string) error {
	m.did = append(m.did, what)
	return m.errs[what]
}

func (m *machine) Secrets(context.Context) ([]hypervisor.Secret, error) {
	return m.secrets, m.errs["secrets"]
}
func (m *machine) RemoveSecret(_ context.Context, usage string) error { return m.do("forget " + usage) }
func (m *machine) Rests(context.Context, string) ([]hypervisor.Rest, error) {
	return m.rests, m.errs["rests"]
}
func (m *machine) EndRest(_ context.Context, name string, r hypervisor.Rest) error {
	return m.do(fmt.Sprintf("end %s %s of %s", r.Kind, r.ID, name))
}
func (m *machine) Domain(context.Context, string) (hypervisor.Domain, error) {
	return m.domain, m.errs["domain"]
}
func (m *machine) Sent(context.Context, string) (bool, error)    { return m.sent, nil }
func (m *machine) Destroy(_ context.Context, name string) error  { return m.do("destroy " + name) }
func (m *machine) Undefine(_ context.Context, name string) error { return m.do("undefine " + name) }
func (m *machine) Claims(add func(leftover.Claim)) error {
	for _, c := range m.claims {
		add(c)
	}
	return m.errs["claims"]
}
func (m *machine) Ended(context.Context) ([]leftover.Migration, error) {
	return m.ended, m.errs["ended"]
}
func (m *machine) Lock(_ context.Context, ref api.Ref, _ string) (func(), error) {
	m.did = append(m.did, "lock "+ref.Name)
	return func() { m.did = append(m.did, "unlock "+ref.Name) }, m.errs["lock"]
}
func (m *machine) Publish(e api.Event) { m.events = append(m.events, e.Detail) }

// A domain is a leftover only where the journal says that a migration has left
// it; anything else is an instance.
func TestDecideCopies(t *testing.T) {
	for _, c := range []struct {
		name   string
		state  hypervisor.State
		reason string
		coming bool
		ended  []leftover.Migration
		claims []leftover.Claim
		left   bool
	}{
		{name: "a paused copy that remains", state: hypervisor.Paused, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}, left: true},
		{name: "a definition that remains", state: hypervisor.Shutoff, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}, left: true},
		{name: "an operator's domain", state: hypervisor.Shutoff},
		{name: "an operator's paused domain", state: hypervisor.Paused},
		{name: "defined anew after a clean migration", state: hypervisor.Shutoff, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now}}},
		{name: "of another instance", state: hypervisor.Paused, ended: []leftover.Migration{{Operation: "op", UUID: "other", At: now, Remains: true}}},
		{name: "it runs", state: hypervisor.Running, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}},
		{name: "it arrives", state: hypervisor.Paused, coming: true, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}},
		{name: "a definition that remains of what was ended", state: hypervisor.Shutoff, reason: "destroyed", ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}, left: true},
		// It has come back, longer ago than the journal knows.
		{name: "its guest has shut down since", state: hypervisor.Shutoff, reason: "shutdown", ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}},
		{name: "it has been saved since", state: hypervisor.Shutoff, reason: "saved", ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}},
		{name: "it has come back since", state: hypervisor.Shutoff, ended: []leftover.Migration{
			{Operation: "back", UUID: uuid, At: now}, {Operation: "op", UUID: uuid, At: now.Add(-time.Hour), Remains: true}}},
		{name: "a record has it", state: hypervisor.Paused, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}},
			claims: []leftover.Claim{{Kind: leftover.ByRecord, Text: "uuid: " + uuid}}},
		{name: "an operation has it", state: hypervisor.Paused, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}},
			claims: []leftover.Claim{{Kind: leftover.ByWork, Text: uuid}}},
		{name: "only its own XML names it", state: hypervisor.Paused, ended: []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}},
			claims: []leftover.Claim{{Kind: leftover.ByDomain, Text: uuid}}, left: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := hypervisor.Domain{Name: "vm", UUID: uuid, State: c.state, Reason: c.reason, Incoming: c.coming}
			out := leftover.DecideThings(leftover.Things{Domains: []hypervisor.Domain{d}}, c.claims, c.ended, now)
			if (len(out) == 1) != c.left {
				t.Fatalf("left over: %+v; want %v", out, c.left)
			}
			if c.left && (out[0].ID != "copy:"+uuid || out[0].Operation != "op" || !strings.Contains(out[0].Why, string(c.state))) {
				t.Errorf("left over: %+v", out[0])
			}
		})
	}
}

func TestDecideSecrets(t *testing.T) {
	for _, c := range []struct {
		name, usage string
		age         time.Duration
		claim       leftover.Claim
		left        bool
	}{
		{name: "nobody's", usage: usage, age: 2 * time.Hour, left: true},
		{name: "of unknown age", usage: usage, left: true},
		{name: "connected for a peer just now", usage: usage, age: time.Minute},
		{name: "an operator's", usage: "iscsi-login", age: 2 * time.Hour},
		{name: "a definition names it", usage: usage, age: 2 * time.Hour, claim: leftover.Claim{Kind: leftover.ByDomain, Text: "<secret usage='" + usage + "'/>"}},
		{name: "a definition has its UUID", usage: usage, age: 2 * time.Hour, claim: leftover.Claim{Kind: leftover.ByDomain, Text: "<secret uuid='" + secret + "'/>"}},
		{name: "a record has its target", usage: usage, age: 2 * time.Hour, claim: leftover.Claim{Kind: leftover.ByRecord, Text: `{"iqn":"iqn.2024-01.org.wherry:a"}`}},
		{name: "a reservation has its target", usage: usage, age: 2 * time.Hour, claim: leftover.Claim{Kind: leftover.ByWork, Text: `{"iqn":"iqn.2024-01.org.wherry:a"}`}},
		{name: "another target is used", usage: usage, age: 2 * time.Hour, claim: leftover.Claim{Kind: leftover.ByRecord, Text: `{"iqn":"iqn.2024-01.org.wherry:b"}`}, left: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := leftover.Secret{Secret: hypervisor.Secret{UUID: secret, Usage: c.usage}}
			if c.age > 0 {
				s.Since = now.Add(-c.age)
			}
			out := leftover.DecideThings(leftover.Things{Secrets: []leftover.Secret{s}}, []leftover.Claim{c.claim}, nil, now)
			if (len(out) == 1) != c.left {
				t.Fatalf("left over: %+v; want %v", out, c.left)
			}
			if c.left && (out[0].ID != "secret:"+secret || out[0].ModifiedAt.IsZero() != (c.age == 0)) {
				t.Errorf("left over: %+v", out[0])
			}
		})
	}
}

func TestDecideWork(t *testing.T) {
	work := []leftover.Work{
		{Instance: "vm", UUID: uuid, Rest: hypervisor.Rest{Kind: hypervisor.RestNode, ID: "migration-vda-storage"}},
		{Instance: "vm", UUID: uuid, Rest: hypervisor.Rest{Kind: hypervisor.RestJob, ID: "drive-virtio-disk0"}},
		{Instance: "vm", UUID: uuid, Rest: hypervisor.Rest{Kind: hypervisor.RestExport, ID: "libvirt-nbd-vda"}},
	}
	ours := []leftover.Migration{{Operation: "op", UUID: uuid, At: now}}
	for _, c := range []struct {
		name   string
		ended  []leftover.Migration
		claims []leftover.Claim
		left   int
	}{
		{name: "of a migration that has ended", ended: ours, left: 3},
		{name: "of an instance that Wherry never moved"},
		{name: "an operation goes on", ended: ours, claims: []leftover.Claim{{Kind: leftover.ByWork, Text: uuid}}},
		{name: "a record names the instance", ended: ours, claims: []leftover.Claim{{Kind: leftover.ByRecord, Text: uuid}}, left: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ids []string
			for _, l := range leftover.DecideThings(leftover.Things{Work: work}, c.claims, c.ended, now) {
				ids = append(ids, l.ID)
			}
			// A node is in use until what writes to it has gone.
			want := []string{"export:vm/libvirt-nbd-vda", "job:vm/drive-virtio-disk0", "node:vm/migration-vda-storage"}
			if !slices.Equal(ids, want[:c.left]) {
				t.Errorf("left over %q; want %q", ids, want[:c.left])
			}
		})
	}
}

// things is a world with one of each.
func things(t *testing.T) *world {
	w := newWorld(t)
	w.host = machine{errs: map[string]error{}, secrets: []hypervisor.Secret{{UUID: secret, Usage: usage}},
		rests: []hypervisor.Rest{{Kind: hypervisor.RestJob, ID: "drive-virtio-disk0"}}, sent: true,
		domain: hypervisor.Domain{Name: "gone", UUID: uuid, State: hypervisor.Paused, Persistent: true},
		ended:  []leftover.Migration{{Operation: "op", UUID: uuid, At: now, Remains: true}}}
	w.domains = []hypervisor.Domain{w.host.domain}
	return w
}

var everything = []string{"copy:" + uuid, "job:gone/drive-virtio-disk0", "secret:" + secret}

func (w *world) ids() (out []string) {
	w.t.Helper()
	list, err := w.List(w.t.Context())
	must(w.t, err)
	for _, l := range list.Leftovers {
		out = append(out, l.ID)
	}
	return out
}

func TestThingsAreDeleted(t *testing.T) {
	w := things(t)
	if got := w.ids(); !slices.Equal(got, everything) {
		t.Fatalf("left over %q; want %q", got, everything)
	}
	out, err := w.Delete(t.Context(), everything)
	must(t, err)
	if !slices.Equal(out.Deleted, everything) || len(w.host.events) != len(everything) {
		t.Errorf("%+v, events %q", out, w.host.events)
	}
	want := []string{"lock gone", "destroy gone", "undefine gone", "unlock gone", "lock gone", "end job drive-virtio-disk0 of gone", "unlock gone", "forget " + usage}
	if !slices.Equal(w.host.did, want) {
		t.Errorf("did %q; want %q", w.host.did, want)
	}
}

// What has changed since the look stays.
func TestThingsThatStay(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		id     string
		why    string
	}{
		"the instance is busy":          {func(w *world) { w.host.errs["lock"] = errors.New("operation op2 has it") }, "copy:" + uuid, "op2"},
		"QEMU has not sent its guest":   {func(w *world) { w.host.sent = false }, "copy:" + uuid, "only copy"},
		"it runs by now":                {func(w *world) { w.host.domain.State = hypervisor.Running }, "copy:" + uuid, "runs"},
		"another has its name":          {func(w *world) { w.host.domain.UUID = "other" }, "copy:" + uuid, "another instance"},
		"a job of another of that name": {func(w *world) { w.host.domain.UUID = "other" }, "job:gone/drive-virtio-disk0", "another instance"},
		"libvirt keeps the login":       {func(w *world) { w.host.errs["forget "+usage] = errors.New("it is down") }, "secret:" + secret, "down"},
		"nobody has listed it":          {func(*world) {}, "secret:other", "not left over"},
	} {
		t.Run(name, func(t *testing.T) {
			w := things(t)
			c.change(w)
			out, err := w.Delete(t.Context(), []string{c.id})
			must(t, err)
			if len(out.Deleted) > 0 || len(out.Kept) != 1 || !strings.Contains(out.Kept[0].Why, c.why) || len(w.host.events) > 0 {
				t.Errorf("%+v, events %q; want it kept: %s", out, w.host.events, c.why)
			}
			for _, did := range w.host.did {
				if strings.HasPrefix(did, "destroy") || strings.HasPrefix(did, "end") {
					t.Errorf("did %q", w.host.did)
				}
			}
		})
	}
}

// What hangs is not taken for left over, and hides nothing else.
func TestThingsThatDoNotAnswer(t *testing.T) {
	for what, rest := range map[string][]string{"secrets": everything[:2], "rests": {everything[0], everything[2]}} {
		w := things(t)
		w.host.errs[what] = errors.New("it hangs")
		if what == "secrets" {
			w.host.secrets = nil
		} else {
			w.host.rests = nil
		}
		list, err := w.List(t.Context())
		must(t, err)
		if got := w.ids(); !slices.Equal(got, rest) || len(list.Skipped) != 1 || !strings.Contains(list.Skipped[0].Why, "hangs") {
			t.Errorf("left over %q, skipped %+v", got, list.Skipped)
		}
	}
}
