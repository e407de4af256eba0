package leftover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Things are what libvirt and QEMU have on this host, besides files.
type Things struct {
	Domains []hypervisor.Domain
	Secrets []Secret
	Work    []Work
}

// Secret is a login that libvirt keeps.
type Secret struct {
	hypervisor.Secret
	Since time.Time // zero = not known
}

// Work is what the QEMU of a running instance has of a migration.
type Work struct {
	Instance, UUID string
	hypervisor.Rest
}

// Kinds of claims.
const (
	ByDomain = "domain" // the XML of a domain of this host
	ByRecord = "record"
	ByWork   = "work" // an operation or a reservation that has not ended
)

// Claim is a text by which somebody owns what it names.
type Claim struct {
	Kind string
	By   string // "operation 01J...", for people
	Text string
}

// Migration is one from this host, or to it, that has ended.
type Migration struct {
	Operation, UUID string
	At              time.Time
	// Remains: the instance has gone to the other host for good, and the copy
	// that libvirt left here could not be removed.
	Remains bool
}

// loginAge is when a login that nothing names is nobody's any more. A target is
// connected for a peer some time before its reservation names it.
const loginAge = time.Hour

// DecideThings gives what an operation of Wherry made and nobody owns, by id. A
// domain that somebody else defined is an instance, whatever it looks like:
// the journal must say that it is what a migration has left.
func DecideThings(t Things, claims []Claim, ended []Migration, now time.Time) []api.Leftover {
	out := []api.Leftover{}
	for _, d := range t.Domains {
		if l, ok := copyLeft(d, claims, ended); ok {
			out = append(out, l)
		}
	}
	for _, s := range t.Secrets {
		if l, ok := secretLeft(s, claims, now); ok {
			out = append(out, l)
		}
	}
	for _, w := range t.Work {
		if l, ok := workLeft(w, claims, ended); ok {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b api.Leftover) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// claimed tells whether a claim of one of the kinds names one of the words.
func claimed(claims []Claim, kinds, words []string) bool {
	return slices.ContainsFunc(claims, func(c Claim) bool {
		return slices.Contains(kinds, c.Kind) &&
			slices.ContainsFunc(words, func(w string) bool { return w != "" && strings.Contains(c.Text, w) })
	})
}

// last is the instance's latest migration: an earlier one says nothing of what
// is here now.
func last(ended []Migration, uuid string) (m Migration, ok bool) {
	for _, e := range ended {
		if e.UUID == uuid && (!ok || e.At.After(m.At)) {
			m, ok = e, true
		}
	}
	return m, ok
}

// hasRun tells of a domain that is off that its guest was here after all that a
// migration leaves: it has come back, and is an instance. How it came may be
// longer ago than the journal of what arrived goes.
func hasRun(d hypervisor.Domain) bool {
	return d.State == hypervisor.Shutoff && slices.Contains([]string{"shutdown", "crashed", "saved", "failed", "from-snapshot"}, d.Reason)
}

func copyLeft(d hypervisor.Domain, claims []Claim, ended []Migration) (api.Leftover, bool) {
	m, ok := last(ended, d.UUID)
	if !ok || !m.Remains || d.Incoming || d.State == hypervisor.Running || hasRun(d) ||
		claimed(claims, []string{ByRecord, ByWork}, []string{d.UUID}) {
		return api.Leftover{}, false
	}
	return api.Leftover{Kind: api.LeftoverCopy, ID: api.LeftoverCopy + ":" + d.UUID, Instance: d.Name, Operation: m.Operation, ModifiedAt: m.At.UTC(), Made: true,
		Why: fmt.Sprintf("operation %s has moved %q to another host, which has confirmed it; the copy that libvirt left here is %s, and no record or unfinished operation names it",
			m.Operation, d.Name, d.State),
		Delete: "ends the copy, if QEMU has handed its guest over, and undefines it; its disks stay, and are listed then"}, true
}

// loginPrefix is how the logins begin that Wherry has libvirt keep (see
// api.Target.SecretUsage).
const loginPrefix = "wherry iscsi://"

func secretLeft(s Secret, claims []Claim, now time.Time) (api.Leftover, bool) {
	if !strings.HasPrefix(s.Usage, loginPrefix) || !s.Since.IsZero() && now.Sub(s.Since) < loginAge ||
		claimed(claims, []string{ByDomain, ByRecord, ByWork}, []string{s.UUID, s.Usage, iqnOf(s.Usage)}) {
		return api.Leftover{}, false
	}
	l := api.Leftover{Kind: api.LeftoverSecret, ID: api.LeftoverSecret + ":" + s.UUID, Made: true,
		Why: fmt.Sprintf("it is the login of %q, as only Wherry names it, and no instance, record, reservation or unfinished operation uses that target",
			strings.TrimPrefix(s.Usage, "wherry ")),
		Delete: "has libvirt forget the password; the target and its data are not touched"}
	if !s.Since.IsZero() {
		l.ModifiedAt = s.Since.UTC()
	}
	return l, true
}

// iqnOf gives the target's name in "wherry iscsi://PORTAL/IQN/LUN", or "".
func iqnOf(usage string) string {
	parts := strings.Split(strings.TrimPrefix(usage, loginPrefix), "/")
	if len(parts) != 3 {
		return ""
	}
	return parts[1]
}

func workLeft(w Work, claims []Claim, ended []Migration) (api.Leftover, bool) {
	m, ok := last(ended, w.UUID)
	if !ok || claimed(claims, []string{ByWork}, []string{w.UUID}) {
		return api.Leftover{}, false
	}
	what := map[string][2]string{
		hypervisor.RestJob:    {"copies a disk", "cancels the copy; the guest keeps its disk as it is"},
		hypervisor.RestExport: {"lets another host write to a disk", "closes the export; the guest keeps its disk as it is"},
		hypervisor.RestNode:   {"leads to another host", "removes the node; QEMU refuses while anything uses it"},
	}[w.Kind]
	return api.Leftover{Kind: w.Kind, ID: w.Kind + ":" + w.Instance + "/" + w.ID, Instance: w.Instance, Operation: m.Operation, ModifiedAt: m.At.UTC(), Made: true,
		Why:    fmt.Sprintf("it %s for a migration of %q, the last of which (%s) has ended, and libvirt has no job of that instance", what[0], w.Instance, m.Operation),
		Delete: what[1]}, true
}
