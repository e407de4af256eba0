package hypervisor

import (
	"testing"
	"time"

	"libvirt.org/go/libvirt"
)

func TestMigrateFlags(t *testing.T) {
	const always = libvirt.MIGRATE_LIVE | libvirt.MIGRATE_PEER2PEER | libvirt.MIGRATE_ABORT_ON_ERROR
	const persistent = always | libvirt.MIGRATE_PERSIST_DEST | libvirt.MIGRATE_UNDEFINE_SOURCE
	for name, tc := range map[string]struct {
		p          MigrateParams
		persistent bool
		want       libvirt.DomainMigrateFlags
	}{
		"shared storage":      {MigrateParams{}, true, persistent},
		"no definition here":  {MigrateParams{PersistXML: "<domain/>"}, false, always},
		"full":                {MigrateParams{Disks: []string{"vda"}}, true, persistent | libvirt.MIGRATE_NON_SHARED_DISK},
		"incremental":         {MigrateParams{Disks: []string{"vda"}, Incremental: true}, true, persistent | libvirt.MIGRATE_NON_SHARED_INC},
		"incremental, none":   {MigrateParams{Incremental: true}, true, persistent},
		"proven to be shared": {MigrateParams{Disks: []string{"vda"}, Shared: true}, true, persistent | libvirt.MIGRATE_NON_SHARED_DISK | libvirt.MIGRATE_UNSAFE},
		"converge, post-copy": {MigrateParams{AutoConverge: true, PostCopy: true, TLS: true}, true, persistent | libvirt.MIGRATE_AUTO_CONVERGE | libvirt.MIGRATE_POSTCOPY | libvirt.MIGRATE_TLS},
	} {
		if got := tc.p.flags(tc.persistent); got != tc.want {
			t.Errorf("%s: %#x, want %#x", name, got, tc.want)
		}
	}
}

func TestMigrateParamsOfATransientDomain(t *testing.T) {
	p := MigrateParams{DestXML: "<d/>", PersistXML: "<p/>", Disks: []string{"vda", "vdb"}, TLSDestination: "b"}
	if m := p.params(false); m.PersistXMLSet || !m.DestXMLSet || m.TLSDestinationSet || m.DisksPortSet || m.BandwidthSet || len(m.MigrateDisks) != 2 {
		t.Errorf("%+v", m)
	}
	if m := p.params(true); !m.PersistXMLSet || m.PersistXML != "<p/>" {
		t.Errorf("%+v", m)
	}
}

func TestJobOf(t *testing.T) {
	running := libvirt.DomainJobInfo{
		Type: libvirt.DOMAIN_JOB_UNBOUNDED, OperationSet: true, Operation: libvirt.DOMAIN_JOB_OPERATION_MIGRATION_OUT,
		TimeElapsed: 1500, DiskTotal: 100, DiskProcessed: 40, DiskRemaining: 60,
	}
	if got, want := jobOf(&running), (Job{Kind: JobOutgoing, Phase: PhaseDisk, Elapsed: 1500 * time.Millisecond, DiskTotal: 100, DiskDone: 40, DiskRemaining: 60}); got != want {
		t.Errorf("disks: %+v, want %+v", got, want)
	}
	running.MemTotal, running.MemDirtyRate, running.MemPageSize, running.Downtime, running.MemIteration = 10, 3, 4096, 300, 2
	if got := jobOf(&running); got.Phase != PhaseMemory || got.DirtyRate != 3*4096 || got.ExpectedDowntime != 300*time.Millisecond || got.Downtime != 0 || got.Iteration != 2 {
		t.Errorf("memory: %+v", got)
	}
	done := libvirt.DomainJobInfo{Type: libvirt.DOMAIN_JOB_COMPLETED, OperationSet: true, Operation: libvirt.DOMAIN_JOB_OPERATION_MIGRATION_IN, Downtime: 67}
	if got := jobOf(&done); got.Kind != JobIncoming || got.Phase != PhaseDone || got.Downtime != 67*time.Millisecond || got.ExpectedDowntime != 0 || !got.Success {
		t.Errorf("completed: %+v", got)
	}
	if got := jobOf(&libvirt.DomainJobInfo{Type: libvirt.DOMAIN_JOB_NONE, DiskTotal: 5}); got != (Job{Kind: JobNone}) {
		t.Errorf("none: %+v", got)
	}
	backup := libvirt.DomainJobInfo{Type: libvirt.DOMAIN_JOB_UNBOUNDED, OperationSet: true, Operation: libvirt.DOMAIN_JOB_OPERATION_BACKUP}
	if got := jobOf(&backup); got.Kind != JobOther {
		t.Errorf("backup: %+v", got)
	}
}
