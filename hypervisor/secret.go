package hypervisor

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"

	"libvirt.org/go/libvirt"
)

// HasSecret tells whether libvirt keeps an iSCSI login under that name.
func (c *Client) HasSecret(ctx context.Context, name string) (bool, error) {
	return onControl(ctx, c, "look up secret", name, func(l *link) (bool, error) {
		s, err := l.conn.LookupSecretByUsage(libvirt.SECRET_USAGE_TYPE_ISCSI, name)
		if isCode(err, libvirt.ERR_NO_SECRET) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		l.own(s)()
		return true, nil
	})
}

// SetSecret has libvirt keep the password of an iSCSI login, for disks whose
// XML names it. It outlives libvirt's restarts, so that an instance starts
// without the agent, and libvirt gives it to nobody but QEMU. A secret of that
// name is replaced.
func (c *Client) SetSecret(ctx context.Context, name, password string) error {
	_, err := onControl(ctx, c, "keep secret", name, func(l *link) (none, error) {
		s, err := l.conn.LookupSecretByUsage(libvirt.SECRET_USAGE_TYPE_ISCSI, name)
		if isCode(err, libvirt.ERR_NO_SECRET) {
			s, err = l.conn.SecretDefineXML(secretXML(name), 0)
		}
		if err != nil {
			return none{}, err
		}
		defer l.own(s)()
		return none{}, s.SetValue([]byte(password), 0)
	})
	return err
}

// RemoveSecret has libvirt forget an iSCSI login. None of that name is success.
func (c *Client) RemoveSecret(ctx context.Context, name string) error {
	_, err := onControl(ctx, c, "remove secret", name, func(l *link) (none, error) {
		s, err := l.conn.LookupSecretByUsage(libvirt.SECRET_USAGE_TYPE_ISCSI, name)
		if isCode(err, libvirt.ERR_NO_SECRET) {
			return none{}, nil
		}
		if err != nil {
			return none{}, err
		}
		defer l.own(s)()
		return none{}, s.Undefine()
	})
	return err
}

func secretXML(name string) string {
	var target strings.Builder
	if err := xml.EscapeText(&target, []byte(name)); err != nil {
		panic(errors.Join(errors.New("a strings.Builder failed"), err))
	}
	return fmt.Sprintf("<secret ephemeral='no' private='yes'><description>wherry</description><usage type='iscsi'><target>%s</target></usage></secret>", target.String())
}
