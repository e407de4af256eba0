package instance

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/wherry-kvm/wherry/agent/inspect"
	"github.com/wherry-kvm/wherry/agent/operation"
	"github.com/wherry-kvm/wherry/agent/record"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/volume"
)

const kindCreate = "create"

// Defaults of a new instance.
const (
	defaultMemory = 1 << 30
	rootDisk      = "vda"
)

// created is what the journal keeps of a create: what it is about to make, by
// name, and then what it made, by identity.
type created struct {
	Path    string        `json:"path,omitempty"`
	Owned   *volume.Owned `json:"owned,omitempty"`
	UUID    string        `json:"uuid,omitempty"`
	Defined bool          `json:"defined,omitempty"`
}

// Create makes an instance from a template, or from the caller's own XML.
func (s *Service) Create(ctx context.Context, project string, r api.CreateRequest, k api.Idempotency) (api.Operation, error) {
	c, err := s.newCreation(ctx, api.Ref{Project: cmp.Or(project, api.DefaultProject), Name: r.Name}, r)
	if err != nil {
		return api.Operation{}, err
	}
	return s.Operations.Start(ctx, operation.Spec{Kind: kindCreate, Project: c.ref.Project, Instance: r.Name, Key: k, Request: r, Cancellable: true},
		func(ctx context.Context, op *operation.Op) (any, error) { return c.run(ctx, op) })
}

type creation struct {
	*Service
	ref      api.Ref
	r        api.CreateRequest
	kvm      bool
	pool     api.Pool
	template api.Template
	copyPath string
	size     int64
	made     created
	op       *operation.Op
}

// newCreation answers at once what can be known to be wrong.
func (s *Service) newCreation(ctx context.Context, ref api.Ref, r api.CreateRequest) (*creation, error) {
	c := &creation{Service: s, ref: ref, r: r}
	if r.DomainXML != "" {
		d, err := domainxml.Parse(r.DomainXML)
		if err != nil {
			return nil, api.NewProblem("bad-request", "the domain XML cannot be used: %w", err).WithField("domain_xml", err.Error())
		}
		if d.Name != r.Name {
			return nil, api.NewProblem("bad-request", "the domain XML names the instance %q, the request %q", d.Name, r.Name).WithField("name", "differs from the domain XML's")
		}
		return c, nil
	}
	host, err := s.Host.Host(ctx)
	if err != nil {
		return nil, err
	}
	c.kvm = host.KVM
	if c.template, c.copyPath, err = s.Templates.Ready(ctx, r.Template); err != nil {
		collected := false
		if c.template, collected = s.Templates.Collected(r.Template); !collected {
			return nil, err
		}
		c.copyPath = ""
	}
	name := cmp.Or(r.Pool, s.DefaultPool)
	for _, p := range host.Pools {
		if p.Name == name && p.Active && p.Path != "" {
			c.pool = p
		}
	}
	if c.pool.Name == "" {
		return nil, api.NewProblem("bad-request", "no active pool %q with a folder on this host", name).WithField("pool", "unknown or inactive")
	}
	c.size = cmp.Or(r.DiskSize, c.template.VirtualSize)
	if c.size < c.template.VirtualSize {
		return nil, api.NewProblem("bad-request", "disk_size is %d bytes, template %q needs %d", r.DiskSize, r.Template, c.template.VirtualSize).
			WithField("disk_size", "smaller than the template")
	}
	return c, nil
}

func (c *creation) run(ctx context.Context, op *operation.Op) (any, error) {
	c.op = op
	if err := c.free(ctx); err != nil {
		return nil, err
	}
	op.Undo("remove what was created", func(ctx context.Context) error { return c.undo(ctx, c.ref, c.made) })
	xml := c.r.DomainXML
	if xml == "" {
		if err := c.bring(ctx); err != nil {
			return nil, err
		}
		if err := op.Step(ctx, "volume", c.makeVolume); err != nil {
			return nil, err
		}
		var err error
		if xml, err = c.generate(); err != nil {
			return nil, err
		}
	}
	if err := op.Step(ctx, "define", func(ctx context.Context) error { return c.define(ctx, xml) }); err != nil {
		return nil, err
	}
	if !c.r.Start {
		return map[string]string{"uuid": c.made.UUID}, nil
	}
	err := op.Step(ctx, "start", func(ctx context.Context) error { return c.startNow(ctx, c.ref, nil) })
	if err != nil {
		return nil, err
	}
	return map[string]string{"uuid": c.made.UUID}, nil
}

// bring fetches the template again if its copy was deleted as unused.
func (c *creation) bring(ctx context.Context) error {
	if c.copyPath != "" {
		return nil
	}
	return c.op.Step(ctx, "template", func(ctx context.Context) error {
		err := c.Templates.Bring(ctx, c.r.Template, func(done, total int64) {
			c.op.Progress(api.Progress{BytesDone: done, BytesTotal: max(total, 0)})
		})
		if err != nil {
			return err
		}
		c.template, c.copyPath, err = c.Templates.Ready(ctx, c.r.Template)
		return err
	})
}

// free refuses a name that libvirt knows already: defining would replace it.
func (c *creation) free(ctx context.Context) error {
	d, err := c.Hypervisor.Domain(ctx, c.ref.Name)
	switch {
	case err == nil:
		return api.NewProblem("conflict", "an instance %q (%s, UUID %s) exists already", c.ref.Name, d.State, d.UUID)
	case errors.Is(err, hypervisor.ErrNoDomain):
		return nil
	}
	return inspect.Problem(c.ref, err)
}

func (c *creation) makeVolume(ctx context.Context) error {
	path := filepath.Join(c.pool.Path, c.ref.Name+".qcow2")
	if c.ref.Project != api.DefaultProject {
		path = filepath.Join(c.pool.Path, c.ref.Project+"."+c.ref.Name+".qcow2")
	}
	own, err := volume.Reserve(path)
	if err != nil {
		return api.NewProblem("conflict", "making volume %s: %w", path, err).WithDisk(rootDisk)
	}
	// Between these two lines a crash leaves an empty file that nobody owns:
	// it is reported, never deleted by guesswork.
	c.made.Path, c.made.Owned = path, &own
	if err := c.op.Save(kindCreate, c.made); err != nil {
		return err
	}
	spec := volume.Spec{Path: path, Format: volume.FormatQcow2, VirtualSize: c.size}
	if c.r.Clone != api.ModeFull {
		spec.Backing, spec.BackingFormat = c.copyPath, volume.Format(c.template.Format)
		// First the ref: a template that is removed now keeps its copy.
		ref := api.TemplateRef{Project: c.ref.Project, Instance: c.ref.Name, Disk: rootDisk, Volume: path}
		if err := c.Templates.PutRef(ctx, c.template.ID, c.copyPath, ref); err != nil {
			return api.NewProblem("internal", "writing the template ref: %w", err).WithDisk(rootDisk)
		}
	}
	if err := own.Format(ctx, spec, c.Runner); err != nil {
		return api.NewProblem("internal", "%w", err).WithDisk(rootDisk)
	}
	if c.r.Clone == api.ModeFull {
		return c.fill(ctx, own)
	}
	return nil
}

func (c *creation) fill(ctx context.Context, own volume.Owned) error {
	src, err := volume.Walk(c.copyPath, volume.Format(c.template.Format), []string{filepath.Dir(c.copyPath)})
	if err != nil {
		return api.NewProblem("chain-unsafe", "%w", err).WithDisk(rootDisk)
	}
	err = volume.Fill(ctx, src, own, volume.FormatQcow2, c.Runner, func(done, total int64) {
		p := api.Progress{BytesDone: done, BytesTotal: total}
		if total > 0 {
			p.Percent = 100 * float64(done) / float64(total)
		}
		c.op.Progress(p)
	})
	if err != nil {
		return api.NewProblem("internal", "%w", err).WithDisk(rootDisk)
	}
	return nil
}

func (c *creation) generate() (string, error) {
	disk := domainxml.CreateDisk{Target: rootDisk, Source: c.made.Path, Format: string(volume.FormatQcow2)}
	if c.r.Clone != api.ModeFull {
		disk.Backing = []domainxml.BackingLayer{{Path: c.copyPath, Format: c.template.Format, Type: "file"}}
	}
	spec := domainxml.CreateSpec{Name: c.ref.Name, UUID: newUUID(), VCPUs: max(c.r.VCPUs, 1), SerialLog: c.r.ConsoleLog,
		Memory: cmp.Or(c.r.Memory, int64(defaultMemory)), KVM: c.kvm, Disks: []domainxml.CreateDisk{disk}}
	if b := c.r.Boot; b != nil {
		spec.Kernel, spec.Initrd, spec.Cmdline = b.Kernel, b.Initrd, b.Cmdline
	}
	xml, err := domainxml.Generate(spec)
	if err != nil {
		return "", api.NewProblem("internal", "%w", err)
	}
	return xml, nil
}

// newUUID gives a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (c *creation) define(ctx context.Context, xml string) error {
	if err := c.Power.Define(ctx, xml); err != nil {
		return api.NewProblem("libvirt-failed", "%w", err)
	}
	d, err := c.Hypervisor.Domain(ctx, c.ref.Name)
	if err != nil {
		return inspect.Problem(c.ref, err)
	}
	c.made.Defined, c.made.UUID = true, d.UUID
	if err := c.op.Save(kindCreate, c.made); err != nil {
		return err
	}
	if c.pool.Name != "" {
		if err := c.Hypervisor.RefreshPool(ctx, c.pool.Name); err != nil {
			c.Log.Warn("refreshing a pool", "pool", c.pool.Name, "error", err)
		}
	}
	return c.writeRecord(ctx, d)
}

// writeRecord keeps what this host must know to stop and clean the instance.
func (c *creation) writeRecord(ctx context.Context, d hypervisor.Domain) error {
	xml, err := c.Hypervisor.XML(ctx, c.ref.Name, true)
	if err != nil {
		return inspect.Problem(c.ref, err)
	}
	rec := api.Record{Project: c.ref.Project, Name: c.ref.Name, UUID: d.UUID, DomainXML: xml, Template: c.r.Template, Stop: c.r.Stop,
		PowerState: "stopped", UpdatedAt: c.Now().UTC(), Disks: []api.RecordDisk{}}
	parsed, err := domainxml.Parse(xml)
	if err != nil {
		return api.NewProblem("internal", "reading the defined XML: %w", err)
	}
	for _, x := range parsed.Disks {
		disk := api.RecordDisk{Target: x.Target, Path: x.Source, Format: x.Format}
		if c.made.Owned != nil && x.Source == c.made.Path {
			disk.Owned, disk.Pool, disk.Volume = true, c.pool.Name, filepath.Base(x.Source)
			disk.Template = c.template.ID
			disk.DirectDownload = c.template.DirectDownload && c.r.Clone != api.ModeFull
		}
		rec.Disks = append(rec.Disks, disk)
	}
	return c.Records.Write(rec)
}

// undo takes back what a create made, and nothing else.
func (s *Service) undo(ctx context.Context, ref api.Ref, made created) error {
	var errs []error
	if d, err := s.Hypervisor.Domain(ctx, ref.Name); err == nil && made.UUID != "" && d.UUID == made.UUID {
		if d.Active() {
			errs = append(errs, s.Power.Destroy(ctx, ref.Name))
		}
		errs = append(errs, s.Power.Undefine(ctx, ref.Name))
	}
	if made.Defined {
		errs = append(errs, s.Records.Remove(ref), s.Cleaner.Forget(s.note(ref, made.UUID, "").Ref()))
	}
	if made.Owned != nil {
		errs = append(errs, made.Owned.Remove(), s.Templates.DropRef(ctx, made.Path))
	}
	return errors.Join(errs...)
}

// recoverCreate takes back a create that the agent did not finish: whoever
// asked for it has had no answer, and asks again.
func (s *Service) recoverCreate(ctx context.Context, op *operation.Op) (any, error) {
	var made created
	if _, err := op.Load(kindCreate, &made); err != nil {
		return nil, err
	}
	if rec, err := s.Records.Read(op.Ref()); err == nil && rec.UUID == made.UUID && made.UUID != "" {
		// Everything but the answer was done, unless a start was asked for.
		var r api.CreateRequest
		if err := op.Request(&r); err == nil && !r.Start {
			return json.RawMessage(fmt.Sprintf(`{"uuid":%q}`, made.UUID)), nil
		}
		if d, err := s.Hypervisor.Domain(ctx, op.Ref().Name); err == nil && d.State == hypervisor.Running {
			return json.RawMessage(fmt.Sprintf(`{"uuid":%q}`, made.UUID)), nil
		}
	} else if err != nil && !errors.Is(err, record.ErrNotFound) {
		return nil, err
	}
	op.Undo("remove what was created", func(ctx context.Context) error { return s.undo(ctx, op.Ref(), made) })
	return nil, api.NewProblem("interrupted", "the agent was interrupted while it created %q", op.Ref()).WithHint("ask again")
}
