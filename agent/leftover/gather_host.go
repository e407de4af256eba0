package leftover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
)

// Machine has what libvirt and QEMU keep of targets and of migrations.
type Machine interface {
	Secrets(ctx context.Context) ([]hypervisor.Secret, error)
	RemoveSecret(ctx context.Context, usage string) error
	// Rests gives nothing while libvirt has a job of the domain.
	Rests(ctx context.Context, name string) ([]hypervisor.Rest, error)
	EndRest(ctx context.Context, name string, r hypervisor.Rest) error
}

// Power ends a copy of an instance.
type Power interface {
	// Domain returns hypervisor.ErrNoDomain for one that is gone.
	Domain(ctx context.Context, name string) (hypervisor.Domain, error)
	// Sent tells whether QEMU has handed the guest over to another host whole.
	Sent(ctx context.Context, name string) (bool, error)
	Destroy(ctx context.Context, name string) error
	Undefine(ctx context.Context, name string) error
}

// Journal is what operations and reservations say.
type Journal interface {
	// Claims gives what every operation and reservation holds that has not ended.
	Claims(add func(Claim)) error
	// Ended gives the migrations that have ended.
	Ended(ctx context.Context) ([]Migration, error)
	// Lock takes an instance's lock, or fails where somebody else has it.
	Lock(ctx context.Context, ref api.Ref, who string) (unlock func(), err error)
	// Publish tells of a deletion.
	Publish(e api.Event)
}

// lookTimeout bounds one question to libvirt, or to one instance's QEMU: one
// that hangs must not hide all the rest.
const lookTimeout = 10 * time.Second

// things asks libvirt and QEMU. What did not answer is skipped: nothing of it
// is taken for left over.
func (s *Service) things(ctx context.Context) (t Things, skipped []api.LeftoverSkipped, claims []Claim, ended []Migration, err error) {
	skip := func(what string, err error) {
		skipped = append(skipped, api.LeftoverSkipped{What: what, Why: err.Error()})
	}
	// First what there is, then who owns it: an owner comes before its things.
	if t.Domains, err = s.Hypervisor.Domains(ctx); err != nil {
		return t, nil, nil, nil, fmt.Errorf("instances: %w", err)
	}
	if ended, err = s.Journal.Ended(ctx); err != nil {
		return t, nil, nil, nil, fmt.Errorf("operations: %w", err)
	}
	if t.Secrets, err = s.secrets(ctx); err != nil {
		skip("logins that libvirt keeps", err)
	}
	for _, d := range t.Domains {
		moved := slices.ContainsFunc(ended, func(m Migration) bool { return m.UUID == d.UUID })
		if d.Incoming || !d.Active() || !moved {
			continue // what QEMU does there is no migration's of ours
		}
		work, err := s.work(ctx, d)
		if err != nil && !errors.Is(err, hypervisor.ErrNoDomain) && !errors.Is(err, hypervisor.ErrInvalidState) {
			skip(fmt.Sprintf("block jobs of instance %q", d.Name), err)
		}
		t.Work = append(t.Work, work...)
	}
	claims, err = s.claims(ctx, t.Domains)
	return t, skipped, claims, ended, err
}

func (s *Service) secrets(ctx context.Context) (out []Secret, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	all, err := s.Machine.Secrets(ctx)
	for _, x := range all {
		out = append(out, Secret{Secret: x, Since: s.SecretSince(x.UUID)})
	}
	return out, err
}

func (s *Service) work(ctx context.Context, d hypervisor.Domain) (out []Work, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	all, err := s.Machine.Rests(ctx, d.Name)
	for _, r := range all {
		out = append(out, Work{Instance: d.Name, UUID: d.UUID, Rest: r})
	}
	return out, err
}

func (s *Service) claims(ctx context.Context, domains []hypervisor.Domain) (out []Claim, err error) {
	for _, d := range domains {
		for _, inactive := range []bool{false, true} {
			if d.Incoming || inactive && !d.Persistent {
				continue // what arrives is claimed by its reservation
			}
			xml, err := s.Hypervisor.XML(ctx, d.Name, inactive)
			if errors.Is(err, hypervisor.ErrNoDomain) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("instance %q: %w", d.Name, err)
			}
			out = append(out, Claim{ByDomain, fmt.Sprintf("instance %q", d.Name), xml})
		}
	}
	records, err := s.Records.List()
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	for _, r := range records {
		text, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("the record of %q: %w", r.Name, err)
		}
		out = append(out, Claim{ByRecord, fmt.Sprintf("the record of %q", r.Name), string(text)})
	}
	return out, s.Journal.Claims(func(c Claim) { out = append(out, c) })
}
