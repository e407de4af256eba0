package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
	"github.com/wherry-kvm/wherry/tests/harness"
)

const (
	// bootTime is for all guests of a seed to boot and write, on a machine that has other things to do.
	bootTime = 4 * time.Minute
	memory   = 96 // MiB
	// pace is how often a guest writes to each disk: often enough that two copies could not both run unnoticed.
	pace = "wherry.pace=40ms"
)

// smallFolder is where the pool that can be filled lies.
const smallFolder = "/srv/" + schedule.SmallPool

// name is what an instance of the schedule is called on the hosts: those of another seed are others.
func (p *play) name(short string) string { return fmt.Sprintf("%s-s%d", short, p.s.Seed) }

func (p *play) ref(short string) api.Ref {
	return api.Ref{Project: api.DefaultProject, Name: p.name(short)}
}

func folder(pool string) string {
	if pool == schedule.SmallPool {
		return smallFolder
	}
	return harness.ImagesPath
}

// path is where a disk lies at first.
func (p *play) path(i schedule.Instance, d schedule.Disk) string {
	file := p.name(i.Name) + "-" + d.Target + "." + d.Format
	switch d.Stands {
	case schedule.CDROM:
		return ""
	case schedule.Shared:
		return filepath.Join(harness.SharedPath, file)
	}
	return filepath.Join(folder(i.Pool), file)
}

// guests makes all instances of the schedule and waits until they write.
func (p *play) guests(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	made := make(chan error)
	for _, i := range p.s.Instances {
		go func() {
			err := p.guest(ctx, i)
			if err != nil {
				err = fmt.Errorf("making %s: %w", i.Name, err)
			}
			made <- err
		}()
	}
	var errs []error
	for range p.s.Instances {
		errs = append(errs, <-made)
	}
	return errors.Join(errs...)
}

func (p *play) guest(ctx context.Context, i schedule.Instance) error {
	h, guest := p.host(i.Host), p.lab.Guest(p.name(i.Name))
	if err := guest.Forget(ctx); err != nil {
		return err
	}
	if err := p.disks(ctx, h, i); err != nil {
		return err
	}
	made := map[schedule.Maker]func(context.Context, *host, schedule.Instance) error{
		schedule.ByAgent: p.byAgent, schedule.ByXML: p.byXML, schedule.ByVirsh: p.byVirsh}[i.Maker](ctx, h, i)
	if made != nil {
		return made
	}
	return guest.WaitBlock(ctx, h.Host, "vda", 3)
}

// disks makes the images that the agent does not make, in one command of the host.
func (p *play) disks(ctx context.Context, h *host, i schedule.Instance) error {
	var script strings.Builder
	script.WriteString("set -e\n")
	for n, d := range i.Disks {
		path := p.path(i, d)
		switch {
		case d.Stands == schedule.CDROM || n == 0 && i.Maker == schedule.ByAgent:
		case d.Stands == schedule.Shared:
			fmt.Fprintf(&script, "qemu-img create -q -f %s %s %d\n", d.Format, path, diskSize)
		case d.Stands == schedule.Full:
			fmt.Fprintf(&script, "qemu-img convert -f qcow2 -O qcow2 %s %s && qemu-img resize -q %s %d\n", h.templates[d.Stands], path, path, diskSize)
		case d.Stands == schedule.Alone && d.Format == "raw":
			fmt.Fprintf(&script, "cp --sparse=always /run/wherry/raw.raw %s\n", path)
		case d.Stands == schedule.Alone:
			fmt.Fprintf(&script, "cp --sparse=always /run/wherry/alone.qcow2 %s\n", path)
		default:
			fmt.Fprintf(&script, "qemu-img create -q -f qcow2 -F qcow2 -b %s %s %d\n", h.templates[d.Stands], path, diskSize)
		}
	}
	_, err := h.Exec(ctx, "sh", "-c", script.String())
	return err
}

func (p *play) domain(i schedule.Instance) string {
	d := harness.Domain{Name: p.name(i.Name), MemoryMiB: memory, Options: pace}
	for _, disk := range i.Disks {
		out := harness.Disk{Target: disk.Target, Source: p.path(i, disk), Format: disk.Format}
		if disk.Stands == schedule.CDROM {
			out.Device, out.ReadOnly = "cdrom", true
		}
		d.Disks = append(d.Disks, out)
	}
	return d.XML()
}

func (p *play) byVirsh(ctx context.Context, h *host, i schedule.Instance) error {
	if err := h.Define(ctx, p.domain(i)); err != nil {
		return err
	}
	return h.Start(ctx, p.name(i.Name))
}

func (p *play) byXML(ctx context.Context, h *host, i schedule.Instance) error {
	op, err := h.api.Create(ctx, api.DefaultProject, api.CreateRequest{Name: p.name(i.Name), DomainXML: p.domain(i), Start: true}, "")
	return h.succeeded(ctx, op, err)
}

// byAgent has the root disk made from its template; the others are attached before the instance starts.
func (p *play) byAgent(ctx context.Context, h *host, i schedule.Instance) error {
	root, name, clone := i.Disks[0].Stands, p.name(i.Name), api.ModeLinked
	template := string(root)
	switch root {
	case schedule.Lone:
		template += "-" + h.Name
	case schedule.Full:
		template, clone = string(schedule.Linked), api.ModeFull
	}
	op, err := h.api.Create(ctx, api.DefaultProject, api.CreateRequest{Name: name, Template: template, Pool: i.Pool, Clone: clone,
		DiskSize: diskSize, Memory: memory * mib, ConsoleLog: "/var/log/wherry-guest/" + name + ".log", Start: len(i.Disks) == 1,
		Boot: &api.Boot{Kernel: harness.GuestPath + "/vmlinuz", Initrd: harness.GuestPath + "/initrd.img",
			Cmdline: "console=ttyS0 quiet loglevel=1 no_timer_check " + pace}}, "")
	if err := h.succeeded(ctx, op, err); err != nil || len(i.Disks) == 1 {
		return err
	}
	for _, d := range i.Disks[1:] {
		args := []string{"attach-disk", name, p.path(i, d), d.Target, "--config", "--driver", "qemu", "--subdriver", d.Format}
		if d.Stands == schedule.CDROM {
			args = append(args, "--type", "cdrom", "--mode", "readonly")
		}
		if _, err := h.Virsh(ctx, args...); err != nil {
			return err
		}
	}
	op, err = h.api.Start(ctx, p.ref(i.Name), "")
	return h.succeeded(ctx, op, err)
}

// succeeded waits for an operation that a call has begun, and fails where it does.
func (h *host) succeeded(ctx context.Context, op api.Operation, err error) error {
	if err == nil {
		op, err = h.api.WaitOperation(ctx, op.ID, nil)
	}
	if err == nil && op.Status != api.StatusSucceeded {
		err = fmt.Errorf("%s %s ended as %s: %w", op.Kind, op.ID, op.Status, op.Error)
	}
	return err
}
