package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Secret is a password that libvirt keeps for iSCSI logins; its value is not read.
type Secret struct {
	UUID, Usage string
}

// Secrets lists the iSCSI logins that libvirt keeps, whoever had it keep them.
func (c *Client) Secrets(ctx context.Context) ([]Secret, error) {
	return onLooks(ctx, c, "list secrets", "", func(l *link) ([]Secret, error) {
		all, err := l.conn.ListAllSecrets(0)
		if err != nil {
			return nil, err
		}
		var out []Secret
		for i := range all {
			s, kept, err := l.secret(&all[i])
			if err != nil {
				return nil, err
			}
			if kept {
				out = append(out, s)
			}
		}
		return out, nil
	})
}

// secret reads one; false for one that is gone since, or of another kind.
func (l *link) secret(s *libvirt.Secret) (out Secret, ok bool, err error) {
	defer l.own(s)()
	kind, err := s.GetUsageType()
	if err == nil && kind != (libvirt.SECRET_USAGE_TYPE_ISCSI) {
		return out, false, nil
	}
	if err == nil {
		out.Usage, err = s.GetUsageID()
	}
	if err == nil {
		out.UUID, err = s.GetUUIDString()
	}
	if isCode(err, libvirt.ERR_NO_SECRET) {
		return out, false, nil
	}
	return out, err == nil, err
}
