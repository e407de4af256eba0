package cli

import (
	"context"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// agent is what the commands ask of a running agent. Its errors are
// *api.Problem as the agent sent them, or *unreachableError.
type agent interface {
	instanceCalls
	powerCalls
	migrationCalls
	operationCalls
	templateCalls
	hostCalls
}

type instanceCalls interface {
	Instances(ctx context.Context, project string) ([]api.Instance, error)
	Instance(ctx context.Context, ref api.Ref) (api.Instance, error)
	Disks(ctx context.Context, ref api.Ref) ([]api.Disk, error)
}

type powerCalls interface {
	Create(ctx context.Context, project string, r api.CreateRequest) (api.Operation, error)
	Delete(ctx context.Context, ref api.Ref, r api.DeleteRequest) (api.Operation, error)
	Start(ctx context.Context, ref api.Ref) (api.Operation, error)
	Stop(ctx context.Context, ref api.Ref, r api.StopRequest) (api.Operation, error)
}

type migrationCalls interface {
	Plan(ctx context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error)
	Migrate(ctx context.Context, ref api.Ref, r api.MigrateRequest) (api.Operation, error)
}

type operationCalls interface {
	operationReader
	Operations(ctx context.Context, instance, status string) ([]api.Operation, error)
	// Events calls each for every event after the given one, until ctx ends,
	// the connection breaks or each fails.
	Events(ctx context.Context, after uint64, each func(api.Event) error) error
}

// operationReader is what following an operation needs.
type operationReader interface {
	// Operation answers when the operation has ended or wait is over.
	Operation(ctx context.Context, id string, wait time.Duration) (api.Operation, error)
	CancelOperation(ctx context.Context, id string) (api.Operation, error)
}

type templateCalls interface {
	Templates(ctx context.Context) ([]api.Template, error)
	Template(ctx context.Context, id string) (api.Template, error)
	RegisterTemplate(ctx context.Context, r api.TemplateRequest) (api.Operation, error)
	RemoveTemplate(ctx context.Context, id string) (api.Template, error)
	RetryTemplate(ctx context.Context, id string) (api.Operation, error)
}

type hostCalls interface {
	Host(ctx context.Context) (api.Host, error)
	ModifyTargets(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}
