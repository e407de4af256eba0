package hypervisor

import (
	"slices"
	"testing"
)

// What a user or a backup asked for is not taken for a migration's.
func TestParseRests(t *testing.T) {
	for _, c := range []struct {
		kind, raw string
		want      []string
	}{
		{RestJob, `[{"device":"drive-virtio-disk0","type":"mirror"},{"device":"copy-vda-libvirt-3-format","type":"mirror"},{"device":"drive-virtio-disk1","type":"commit"}]`, []string{"drive-virtio-disk0"}},
		{RestExport, `[{"id":"libvirt-nbd-drive-virtio-disk0","type":"nbd","node-name":"libvirt-1-format","shutting-down":false},{"id":"x","type":"vhost-user-blk"}]`, []string{"libvirt-nbd-drive-virtio-disk0"}},
		{RestNode, `[{"node-name":"libvirt-1-format"},{"node-name":"migration-vda-format"},{"node-name":"migration-vda-storage"}]`, []string{"migration-vda-format", "migration-vda-storage"}},
		{RestNode, `[]`, nil},
	} {
		got, err := parseRests(c.kind, []byte(c.raw))
		var ids []string
		for _, r := range got {
			if r.Kind != c.kind {
				t.Errorf("%+v; want kind %q", r, c.kind)
			}
			ids = append(ids, r.ID)
		}
		if err != nil || !slices.Equal(ids, c.want) {
			t.Errorf("%s: %q, error %v; want %q", c.raw, ids, err, c.want)
		}
	}
	if _, err := parseRests(RestJob, []byte("{")); err == nil {
		t.Error("no error of what cannot be read")
	}
}
