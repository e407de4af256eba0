package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
)

// dialAgent gives the agent that the flags name. It does not connect yet: what
// is wrong here is an address or a certificate file.
func dialAgent(g globalFlags) (agent, error) {
	var options []client.Option
	if strings.HasPrefix(g.agent, "http://") {
		// Whoever writes http:// has decided so.
		options = append(options, client.WithInsecure())
	}
	return client.New(g.agent, client.TLS{CA: g.tlsCA, Cert: g.tlsCert, Key: g.tlsKey}, options...)
}

// newKey makes the idempotency key of one request, so that it is carried out
// once even if the connection breaks and it is sent again.
func newKey() string { return rand.Text() }

// projects is the project of a list: all of them unless one is named.
func (g *globalFlags) projects() string { return cmp.Or(g.project, client.AllProjects) }

// agent is what the commands ask of a running agent; *client.Client is one.
// Its errors are *api.Problem as the agent sent them, or *client.Unreachable.
type agent interface {
	instanceCalls
	powerCalls
	migrationCalls
	rebuildCalls
	operationCalls
	templateCalls
	hostCalls
	shutdownCalls
}

type instanceCalls interface {
	Instances(ctx context.Context, project string) ([]api.Instance, error)
	Instance(ctx context.Context, ref api.Ref) (api.Instance, error)
	Disks(ctx context.Context, ref api.Ref) ([]api.Disk, error)
}

type powerCalls interface {
	Create(ctx context.Context, project string, r api.CreateRequest, key string) (api.Operation, error)
	Delete(ctx context.Context, ref api.Ref, r api.DeleteRequest, key string) (api.Operation, error)
	Start(ctx context.Context, ref api.Ref, key string) (api.Operation, error)
	Stop(ctx context.Context, ref api.Ref, r api.StopRequest, key string) (api.Operation, error)
	Restart(ctx context.Context, ref api.Ref, r api.StopRequest, key string) (api.Operation, error)
}

type migrationCalls interface {
	Plan(ctx context.Context, ref api.Ref, r api.MigrateRequest) (api.Plan, error)
	Migrate(ctx context.Context, ref api.Ref, r api.MigrateRequest, key string) (api.Operation, error)
}

type rebuildCalls interface {
	PlanRebuild(ctx context.Context, ref api.Ref, r api.RebuildRequest) (api.RebuildPlan, error)
	Rebuild(ctx context.Context, ref api.Ref, r api.RebuildRequest, key string) (api.Operation, error)
}

type operationCalls interface {
	operationReader
	Operations(ctx context.Context, filter client.OperationFilter) ([]api.Operation, error)
	Resolve(ctx context.Context, id string, r api.ResolveRequest, key string) (api.Operation, error)
	Leftovers(ctx context.Context) (api.LeftoverList, error)
	DeleteLeftovers(ctx context.Context, paths []string) (api.LeftoversDeleted, error)
	// Events calls each for every event after the given one, until ctx ends,
	// the agent is away for too long or each fails.
	Events(ctx context.Context, after uint64, each func(api.Event) error) error
}

// operationReader is what following an operation needs.
type operationReader interface {
	Operation(ctx context.Context, id string) (api.Operation, error)
	// WaitOperation answers when the operation has ended; each look at it on
	// the way goes to onUpdate. It bears an agent that restarts.
	WaitOperation(ctx context.Context, id string, onUpdate func(api.Operation)) (api.Operation, error)
	Cancel(ctx context.Context, id string) (api.Operation, error)
}

type templateCalls interface {
	Templates(ctx context.Context) ([]api.Template, error)
	UnownedFiles(ctx context.Context) ([]api.UnownedFile, error)
	Template(ctx context.Context, id string) (api.Template, error)
	RegisterTemplate(ctx context.Context, r api.TemplateRequest, key string) (api.Operation, error)
	RemoveTemplate(ctx context.Context, id string) (api.Template, error)
	RetryTemplate(ctx context.Context, id, key string) (api.Operation, error)
	ScrubTemplate(ctx context.Context, id, key string) (api.Operation, error)
}

type hostCalls interface {
	Host(ctx context.Context) (api.Host, error)
	Bandwidth(ctx context.Context) (api.Bandwidth, error)
	SetBandwidth(ctx context.Context, bytes int64) (api.Bandwidth, error)
	ResetBandwidth(ctx context.Context) (api.Bandwidth, error)
	ModifyTargets(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error)
}
