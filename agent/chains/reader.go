package chains

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/template"
)

// Defaults of a Reader's deadlines.
const (
	defaultTimeout  = 30 * time.Second
	defaultInstance = 5 * time.Second
)

// ErrBusy says that an earlier reading has not ended, such as one that waits for a file
// server that is gone.
var ErrBusy = errors.New("the disks of this host are being read already")

// Hypervisor is what a reading asks of libvirt and QEMU.
type Hypervisor interface {
	// Domains lists every domain of the host in one pass.
	Domains(ctx context.Context) ([]hypervisor.Domain, error)
	// XML gives the live XML, or the one of the next start; ErrNoDomain.
	XML(ctx context.Context, name string, inactive bool) (string, error)
	// Blocks gives QEMU's block graph; hypervisor.ErrInvalidState when stopped.
	Blocks(ctx context.Context, name string) ([]hypervisor.BlockNode, error)
}

// Reader reads chains. Hypervisor, Pools and IsCopy are required.
type Reader struct {
	Hypervisor Hypervisor
	// Pools gives this host's pools.
	Pools func(ctx context.Context) ([]api.Pool, error)
	// IsCopy tells whether a path is a template's copy: it has no backing
	// layer, so a chain that leads there is known to its end even where the
	// file is gone.
	IsCopy  func(path string) bool
	Records record.Dir
	// Timeout bounds a whole reading, InstanceTimeout what is asked of one
	// instance, so that one that hangs costs no more than that.
	Timeout, InstanceTimeout time.Duration

	once sync.Once
	turn chan struct{} // holds the one reading that is under way
}

// Read gives the chains of all instances of this host, and of the given
// volumes where no instance has them. An error says that nothing is known; what
// is known in part says what is not (Chains.Unread).
func (r *Reader) Read(ctx context.Context, volumes ...string) (template.Chains, error) {
	return r.bounded(ctx, func(ctx context.Context) (template.Chains, error) {
		out, err := r.instances(ctx)
		if err == nil {
			alone(ctx, volumes, &out)
		}
		return out, err
	})
}

// ReadAll is Read, and adds the volumes in the folders of the pools that no
// instance was found to have, but whose header names a backing file. It opens
// every file there.
func (r *Reader) ReadAll(ctx context.Context) (template.Chains, error) {
	return r.bounded(ctx, func(ctx context.Context) (template.Chains, error) {
		out, err := r.instances(ctx)
		if err != nil {
			return out, err
		}
		pools, err := r.Pools(ctx)
		if err != nil {
			return out, fmt.Errorf("pools: %w", err)
		}
		stray(ctx, pools, &out)
		return out, nil
	})
}

// bounded runs a reading that the deadline ends for its caller even where the
// kernel waits for a file server, which no context ends. Such a reading stays
// the only one until it returns.
func (r *Reader) bounded(ctx context.Context, read func(context.Context) (template.Chains, error)) (template.Chains, error) {
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	type result struct {
		chains template.Chains
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	r.once.Do(func() { r.turn = make(chan struct{}, 1) })
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		cancel()
		return template.Chains{}, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
	got := make(chan result, 1)
	go func() {
		defer cancel()
		chains, err := read(ctx)
		<-r.turn
		got <- result{chains, err}
	}()
	select {
	case res := <-got:
		return res.chains, res.err
	case <-ctx.Done():
	}
	// The reading itself may have just ended, and cancelled the context.
	select {
	case res := <-got:
		return res.chains, res.err
	default:
		return template.Chains{}, fmt.Errorf("reading the disks of this host: %w", ctx.Err())
	}
}

func (r *Reader) instances(ctx context.Context) (template.Chains, error) {
	var out template.Chains
	domains, err := r.Hypervisor.Domains(ctx)
	if err != nil {
		return out, fmt.Errorf("listing the instances: %w", err)
	}
	pools, err := r.Pools(ctx)
	if err != nil {
		return out, fmt.Errorf("pools: %w", err)
	}
	projects := map[string]string{}
	records, _ := r.Records.List() // a damaged record only costs the project's name
	for _, rec := range records {
		projects[rec.UUID] = rec.Project
	}
	for _, d := range domains {
		if err := ctx.Err(); err != nil {
			return out, fmt.Errorf("reading the disks of this host: %w", err)
		}
		in := instance{Reader: r, domain: d, pools: pools, project: projects[d.UUID], out: &out}
		if in.project == "" {
			in.project = api.DefaultProject
		}
		in.read(ctx)
	}
	return out, nil
}

// instance is the reading of one domain.
type instance struct {
	*Reader
	domain  hypervisor.Domain
	project string
	pools   []api.Pool
	out     *template.Chains
}

func (in *instance) unread(format string, args ...any) {
	in.out.Unread = append(in.out.Unread, fmt.Sprintf("instance %q: ", in.domain.Name)+fmt.Sprintf(format, args...))
}

// read takes what the instance has open now and what its next start will open:
// the two may differ.
func (in *instance) read(ctx context.Context) {
	timeout := in.InstanceTimeout
	if timeout <= 0 {
		timeout = defaultInstance
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d := in.domain
	var nodes []hypervisor.BlockNode
	asked := false
	// The QEMU of one that is arriving answers nothing for half a minute.
	if d.Active() && !d.Incoming {
		var err error
		nodes, err = in.Hypervisor.Blocks(ctx, d.Name)
		switch {
		case err == nil:
			asked = true
		case errors.Is(err, hypervisor.ErrNoDomain):
			return
		case errors.Is(err, hypervisor.ErrInvalidState): // it has stopped since it was listed
		default:
			in.unread("what QEMU has open: %v", err)
		}
	}
	for _, inactive := range []bool{false, true} {
		if inactive && !d.Persistent || !inactive && !d.Active() {
			continue
		}
		live := asked && !inactive
		if !in.definition(ctx, inactive, live, nodes) {
			return
		}
	}
}

// definition reads one XML of the instance; false when it has gone.
func (in *instance) definition(ctx context.Context, inactive, live bool, nodes []hypervisor.BlockNode) bool {
	text, err := in.Hypervisor.XML(ctx, in.domain.Name, inactive)
	if errors.Is(err, hypervisor.ErrNoDomain) {
		return false
	}
	if err != nil {
		in.unread("its definition: %v", err)
		return true
	}
	parsed, err := domainxml.Parse(text)
	if err != nil {
		in.unread("its definition: %v", err)
		return true
	}
	for _, x := range parsed.Disks {
		var node *hypervisor.BlockNode
		if live {
			if i := slices.IndexFunc(nodes, func(n hypervisor.BlockNode) bool { return n.Target == x.Target }); i >= 0 {
				node = &nodes[i]
			}
		}
		in.disk(x, node)
	}
	return true
}
