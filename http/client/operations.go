package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
)

// OperationFilter narrows a list of operations; what is empty is left open.
type OperationFilter struct {
	Project  string // "" and [AllProjects] are all
	Instance string
	Status   string
}

func operation(method, id string) request {
	return request{method: method, path: []string{"v1", "operations", id}, again: true}
}

// Operations lists operations.
func (c *Client) Operations(ctx context.Context, f OperationFilter) ([]api.Operation, error) {
	r := get("v1", "operations")
	r.query = url.Values{}
	for name, v := range map[string]string{"project": f.Project, "instance": f.Instance, "status": f.Status} {
		if v != "" {
			r.query.Set(name, v)
		}
	}
	list, err := call[api.OperationList](ctx, c, r)
	return list.Operations, err
}

// Operation gives an operation as it is.
func (c *Client) Operation(ctx context.Context, id string) (api.Operation, error) {
	return call[api.Operation](ctx, c, operation(http.MethodGet, id))
}

// OperationWait gives an operation when it ended, or after wait as it is then.
// The agent waits for at most a minute.
func (c *Client) OperationWait(ctx context.Context, id string, wait time.Duration) (api.Operation, error) {
	r := operation(http.MethodGet, id)
	r.query = url.Values{"wait": {wait.String()}}
	// An agent that hangs must not hold up who follows it.
	r.limit = min(wait, time.Minute) + answerGrace
	return call[api.Operation](ctx, c, r)
}

// Cancel asks an operation to end. It ends later: WaitOperation tells how.
func (c *Client) Cancel(ctx context.Context, id string) (api.Operation, error) {
	return call[api.Operation](ctx, c, operation(http.MethodDelete, id))
}

// Resolve settles an operation that needs a decision. It goes on after the
// answer: WaitOperation tells how it ended.
func (c *Client) Resolve(ctx context.Context, id string, body api.ResolveRequest, key string) (api.Operation, error) {
	return c.act(ctx, request{method: http.MethodPost, path: []string{"v1", "operations", id, "resolve"}}, body, key)
}

// answerGrace is how much longer than asked an agent may take to answer.
const answerGrace = 30 * time.Second

// How long one question waits at the agent: with somebody watching, often
// enough for a progress bar.
const (
	watchedWait   = time.Second
	unwatchedWait = 30 * time.Second
)

// WaitOperation follows an operation to its end and gives what it became, be
// it a failure: the operation's Error is not this call's. onUpdate, where it is
// not nil, gets every state seen, the last one too, about once a second. An
// agent that restarts or cannot be reached for a while is asked again; the
// error is then the last one. When ctx ends, the operation goes on.
func (c *Client) WaitOperation(ctx context.Context, id string, onUpdate func(api.Operation)) (api.Operation, error) {
	wait := unwatchedWait
	if onUpdate != nil {
		wait = watchedWait
	}
	retry := c.retry()
	var last api.Operation
	for {
		asked := time.Now()
		op, err := c.OperationWait(ctx, id, wait)
		if err != nil {
			if !passing(err) {
				return last, err
			}
			if err := retry.pause(ctx, err); err != nil {
				return last, err
			}
			continue
		}
		retry.reset()
		last = op
		if onUpdate != nil {
			onUpdate(op)
		}
		if op.Ended() {
			return op, nil
		}
		// An agent that shuts down answers at once; that must not become a
		// storm of questions.
		if err := sleep(ctx, min(wait, c.first)-time.Since(asked)); err != nil {
			return last, err
		}
	}
}

// passing tells whether an error may be over soon: the agent restarts, or its
// libvirt does. Certificates that do not suit will not suit later.
func passing(err error) bool {
	if e, ok := errors.AsType[*Unreachable](err); ok {
		return e.Stage != StageTLS
	}
	p, ok := errors.AsType[*api.Problem](err)
	return ok && p.Status == http.StatusServiceUnavailable
}
