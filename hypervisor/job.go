package hypervisor

import (
	"context"
	"time"

	"libvirt.org/go/libvirt"
)

// Kinds of jobs.
const (
	JobNone     = "none"
	JobOutgoing = "outgoing"
	JobIncoming = "incoming" // no figures here: the source has them
	JobOther    = "other"    // save, backup, snapshot, ...
)

// Phases of an outgoing migration.
const (
	PhaseSetup  = "setup"
	PhaseDisk   = "disk"
	PhaseMemory = "memory"
	PhaseDone   = "done"
)

// Job is the progress of a domain's migration. Bytes, and bytes per second.
type Job struct {
	Kind, Phase                        string
	Elapsed                            time.Duration
	MemTotal, MemDone, MemRemaining    int64
	DiskTotal, DiskDone, DiskRemaining int64 // all disks together; see BlockJobs for each
	MemBPS, DiskBPS                    int64
	DirtyRate                          int64 // memory the guest writes, bytes per second
	Iteration                          int   // pass over memory, from 1
	ExpectedDowntime                   time.Duration
	Downtime                           time.Duration // of a completed job
	Setup                              time.Duration
	Throttle                           int // percent of its time the guest is held by auto-converge
	Success                            bool
	Error                              string
}

// Job returns the domain's running job, as its source sees it.
func (c *Client) Job(ctx context.Context, name string) (Job, error) {
	return withDomain(ctx, c, "read job of", name, func(_ *link, d *libvirt.Domain) (Job, error) {
		info, err := d.GetJobStats(0)
		if refusedOnDestination(err) {
			state, reason, serr := d.GetState()
			if serr == nil && maybeIncoming(state, reason) {
				return Job{Kind: JobIncoming}, nil
			}
		}
		if err != nil {
			return Job{}, err
		}
		return jobOf(info), nil
	})
}

// CompletedJob returns the last migration's figures, with its downtime. After
// a success they are on the destination; a failure leaves none (Kind "none").
// Reading does not use them up.
func (c *Client) CompletedJob(ctx context.Context, name string) (Job, error) {
	return withDomain(ctx, c, "read completed job of", name, func(_ *link, d *libvirt.Domain) (Job, error) {
		info, err := d.GetJobStats(libvirt.DOMAIN_JOB_STATS_COMPLETED | libvirt.DOMAIN_JOB_STATS_KEEP_COMPLETED)
		if err != nil {
			return Job{}, err
		}
		return jobOf(info), nil
	})
}

func jobOf(i *libvirt.DomainJobInfo) Job {
	if i.Type == libvirt.DOMAIN_JOB_NONE {
		return Job{Kind: JobNone}
	}
	ms := func(v uint64) time.Duration { return time.Duration(v) * time.Millisecond }
	j := Job{
		Kind: jobKind(i), Elapsed: ms(i.TimeElapsed), Setup: ms(i.SetupTime),
		MemTotal: int64(i.MemTotal), MemDone: int64(i.MemProcessed), MemRemaining: int64(i.MemRemaining),
		DiskTotal: int64(i.DiskTotal), DiskDone: int64(i.DiskProcessed), DiskRemaining: int64(i.DiskRemaining),
		MemBPS: int64(i.MemBps), DiskBPS: int64(i.DiskBps),
		DirtyRate: int64(i.MemDirtyRate * i.MemPageSize), Iteration: int(i.MemIteration),
		Throttle: i.AutoConvergeThrottle, Success: i.JobSuccess, Error: i.ErrorMessage,
	}
	if i.Type == libvirt.DOMAIN_JOB_COMPLETED || i.Type == libvirt.DOMAIN_JOB_FAILED || i.Type == libvirt.DOMAIN_JOB_CANCELLED {
		j.Phase, j.Downtime = PhaseDone, ms(i.Downtime)
		j.Success = i.Type == libvirt.DOMAIN_JOB_COMPLETED
		return j
	}
	j.ExpectedDowntime = ms(i.Downtime)
	switch {
	case i.MemTotal > 0:
		j.Phase = PhaseMemory
	case i.DiskTotal > 0:
		j.Phase = PhaseDisk
	default:
		j.Phase = PhaseSetup
	}
	return j
}

// jobKind: an operation is only told by a running job on its source, and by
// completed figures, where "in" is how a destination remembers it.
func jobKind(i *libvirt.DomainJobInfo) string {
	switch {
	case !i.OperationSet, i.Operation == libvirt.DOMAIN_JOB_OPERATION_MIGRATION_OUT:
		return JobOutgoing
	case i.Operation == libvirt.DOMAIN_JOB_OPERATION_MIGRATION_IN:
		return JobIncoming
	}
	return JobOther
}
