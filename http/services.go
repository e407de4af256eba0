package http

import (
	"context"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// Errors of all services are an [*api.Problem] or wrap one; anything else is
// answered as "internal". A call that changes state gets the request's
// idempotency, and gives the operation of the first such request again.

// Instances looks at instances.
type Instances interface {
	// List gives the instances of a project, of all projects for "".
	List(ctx context.Context, project string) ([]api.Instance, error)
	// Get returns "not-found" for an instance that libvirt does not know.
	Get(ctx context.Context, ref api.Ref) (api.Instance, error)
	// Disks returns "not-found", and "chain-unsafe" where a chain cannot be read.
	Disks(ctx context.Context, ref api.Ref) ([]api.Disk, error)
}

// InstanceActions starts the operations on instances. All return "busy" while
// another operation holds the instance.
type InstanceActions interface {
	// Create returns "conflict" for a name that is taken.
	Create(ctx context.Context, project string, r api.CreateRequest, k api.Idempotency) (api.Operation, error)
	// Delete returns "precondition" while the instance runs.
	Delete(ctx context.Context, ref api.Ref, r api.DeleteRequest, k api.Idempotency) (api.Operation, error)
	Start(ctx context.Context, ref api.Ref, k api.Idempotency) (api.Operation, error)
	// Stop ends a weaker operation on the instance; its own waits for that then.
	Stop(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error)
	Restart(ctx context.Context, ref api.Ref, r api.StopRequest, k api.Idempotency) (api.Operation, error)
}

// Shutdowns stops the host's instances, all at once, and knows how each is to
// go down.
type Shutdowns interface {
	// Shutdown joins one that is under way. An operation without an id means
	// that it goes on without the store; Status follows it.
	Shutdown(ctx context.Context, r api.ShutdownRequest, k api.Idempotency) (api.Operation, error)
	Status(ctx context.Context) (api.Shutdown, error)
	// Policy sets how an instance goes down with the host. It returns
	// "precondition" for one without a record.
	Policy(ctx context.Context, ref api.Ref, p api.StopPolicy) (api.StopPolicy, error)
	// Ended hears from libvirt's hook that an instance has ended. Libvirt waits:
	// it returns at once, and what is owed is done after that.
	Ended(ctx context.Context, r api.HookRequest) error
}

// Migrations plans and starts migrations.
type Migrations interface {
	// Plan changes nothing. It returns "refused" with every reason at once.
	Plan(ctx context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error)
	// Migrate returns "busy" with the holding operation.
	Migrate(ctx context.Context, ref api.Ref, r api.MigrateRequest, k api.Idempotency) (api.Operation, error)
}

// Rebuilds replaces the root disks of instances.
type Rebuilds interface {
	// Plan changes nothing. It returns "precondition" with every reason at once,
	// and "busy" with the holding operation.
	Plan(ctx context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error)
	// Rebuild returns the same at once, before anything is begun.
	Rebuild(ctx context.Context, ref api.Ref, r api.RebuildRequest, k api.Idempotency) (api.Operation, error)
}

// Incoming is the destination's side of a migration. All but Facts and Reserve
// return "not-found" for an id that is not, or no longer, known.
type Incoming interface {
	Facts(ctx context.Context, r api.FactsRequest) (api.Facts, error)
	Reserve(ctx context.Context, r api.IncomingRequest) (api.Incoming, error)
	Renew(ctx context.Context, id string) (api.Incoming, error)
	Get(ctx context.Context, id string) (api.Incoming, error)
	Commit(ctx context.Context, id string, r api.CommitRequest) (api.Incoming, error)
	// Settle acts on a copy whose migration ended unclearly, as its source says.
	// It returns "conflict" where the copy is not one to be acted on so.
	Settle(ctx context.Context, id string, r api.SettleRequest) (api.Incoming, error)
	// Remove takes back all that the reservation made, and nothing else.
	Remove(ctx context.Context, id string) error
}

// Operations follows and cancels operations.
type Operations interface {
	Get(ctx context.Context, id string) (api.Operation, error)
	// List gives those of an instance and of a status; "" leaves either open.
	List(ctx context.Context, instance, status string) ([]api.Operation, error)
	// Wait returns when the operation ended, or after d with what it is then.
	Wait(ctx context.Context, id string, d time.Duration) (api.Operation, error)
	// Cancel asks for it; asking twice is no error.
	Cancel(ctx context.Context, id string) (api.Operation, error)
	// Resolve settles an operation in needs_decision and returns when that has
	// begun. The same once more is no error. It returns "conflict", naming why,
	// where it could make two running copies or destroy the only one.
	Resolve(ctx context.Context, id string, r api.ResolveRequest) (api.Operation, error)
	// Events replays the events after an id and goes on live. The channel is
	// closed when ctx ends, or when its reader is too slow to keep up.
	Events(ctx context.Context, after uint64) (<-chan api.Event, error)
}

// Leftovers are the files in the host's pools that nothing of the host owns.
type Leftovers interface {
	// List returns "not-ready" while it cannot be told what owns them.
	List(ctx context.Context) (api.LeftoverList, error)
	// Delete looks again, and says of each path whether it has gone.
	Delete(ctx context.Context, paths []string) (api.LeftoversDeleted, error)
}

// Templates keeps the templates of this host.
type Templates interface {
	List(ctx context.Context) (api.TemplateList, error)
	Get(ctx context.Context, id string) (api.Template, error)
	// Register returns "conflict" for an id that means another image already.
	Register(ctx context.Context, r api.TemplateRequest, k api.Idempotency) (api.Operation, error)
	// Remove leaves a tombstone where a volume may stand on the template.
	Remove(ctx context.Context, id string) (api.Template, error)
	Retry(ctx context.Context, id string, k api.Idempotency) (api.Operation, error)
	// Scrub reads every ready copy whole, and fails where one is not what it was.
	Scrub(ctx context.Context, id string, k api.Idempotency) (api.Operation, error)
	// Open gives a ready copy's content, by a template's id or by its digest
	// ("sha256:..."); the caller closes the file. It returns "not-found", and
	// "not-ready" where the copy is not, or is no longer what was published.
	Open(ctx context.Context, id string) (*os.File, api.Template, error)
}

// Targets connects and disconnects storage endpoints (ModifyTargets).
type Targets interface {
	// Modify returns "target-failed"; those it connected are then undone.
	Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}

// Hosts speaks for this host.
type Hosts interface {
	Host(ctx context.Context) (api.Host, error)
	// Bandwidth gives what its migrations may send together, and SetBandwidth
	// changes it, in bytes per second; 0 = no limit; by names who asks.
	// ResetBandwidth goes back to what is configured.
	Bandwidth(ctx context.Context) (api.Bandwidth, error)
	SetBandwidth(ctx context.Context, bytes int64, by string) (api.Bandwidth, error)
	ResetBandwidth(ctx context.Context) (api.Bandwidth, error)
	// Ready returns why the host cannot work just now, such as "libvirt-down".
	Ready(ctx context.Context) error
}
