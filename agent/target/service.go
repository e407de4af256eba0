// Package target answers ModifyTargets: it connects storage endpoints to this
// host, and disconnects them.
package target

import (
	"context"
	"errors"
	"fmt"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/volume/target"
)

// Service connects targets with the connector of their type.
type Service struct {
	Set target.Set
}

// Modify connects or disconnects every target of the request. One that cannot
// be connected undoes those that this call connected; the error carries its
// index and the cause's own text.
func (s *Service) Modify(ctx context.Context, r api.TargetsRequest) (api.TargetsResponse, error) {
	targets := make([]target.Target, len(r.Targets))
	for i, t := range r.Targets {
		targets[i] = convert(t)
	}
	out := api.TargetsResponse{Connected: []api.ConnectedTarget{}}
	if !r.Add {
		if err := s.Set.Disconnect(ctx, targets); err != nil {
			return out, problem(err)
		}
		return out, nil
	}
	connected, err := s.Set.Connect(ctx, targets)
	if err != nil {
		return out, problem(err)
	}
	for _, c := range connected {
		// The size is for the caller's comfort; that it cannot be told is no failure.
		size, _ := s.Set.VirtualSize(ctx, targets[c.Index])
		out.Connected = append(out.Connected, api.ConnectedTarget{Index: c.Index, Path: c.Path, Size: size})
	}
	return out, nil
}

func convert(t api.Target) target.Target {
	out := target.Target{Type: t.Type, Path: t.Path, Portal: t.Portal, IQN: t.IQN, LUN: t.LUN,
		SystemID: t.SystemID, VolumeID: t.VolumeID, Pool: t.Pool, Image: t.Image, Monitors: t.Monitors}
	if t.Type == target.TypeISCSI {
		out.SecretName = t.SecretUsage()
	}
	if t.CHAP != nil {
		out.CHAP = &target.CHAP{User: t.CHAP.User, Secret: t.CHAP.Secret}
	}
	return out
}

func problem(err error) error {
	p := api.NewProblem("target-failed", "%w", err)
	if at, ok := errors.AsType[*target.IndexError](err); ok {
		p.WithField(fmt.Sprintf("targets[%d]", at.Index), at.Err.Error())
	}
	if errors.Is(err, target.ErrInvalid) || errors.Is(err, target.ErrUnknownType) {
		p.Hint = "the request names a target that cannot exist"
	}
	return p
}
