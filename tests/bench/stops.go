package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

const (
	herdSize = 20
	// herdSlow is what each guest takes to shut down, as one does that has services to stop.
	herdSlow = 5 * time.Second
	// herdBoots is how many boot at the same time: emulation keeps a core busy for each.
	herdBoots  = 4
	wantedStop = 1.3 // times the slowest of them
)

// herd is guests on host a.
type herd struct {
	lab   *harness.Lab
	host  *harness.Host
	agent *client.Client
	names []string
}

// stops measures how long it takes to stop many guests at once, compared with the slowest of them: alone, and of those that
// were stopped together.
func stops(ctx context.Context) (err error) {
	lab, err := harness.Connect(ctx)
	if err != nil {
		return err
	}
	h := &herd{lab: lab, host: lab.A}
	if h.agent, err = client.New("unix:"+h.host.Socket(), client.TLS{}); err != nil {
		return err
	}
	defer h.agent.Close()
	if err := h.host.Reset(ctx); err != nil {
		return err
	}
	for i := range herdSize {
		h.names = append(h.names, fmt.Sprintf("bench-stop%02d", i))
	}
	defer func() { err = errors.Join(err, h.each(herdSize, h.remove)) }() //nolint:contextcheck // also after an interrupt
	create, start := func(name string) error { return h.create(ctx, name) }, func(name string) error { return h.start(ctx, name) }
	if err := errors.Join(h.each(herdBoots, create), h.each(herdBoots, start)); err != nil {
		return err
	}

	// Each alone, while the others run.
	alone := map[string]time.Duration{}
	for _, name := range h.names {
		if alone[name], err = h.stop(ctx, name); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s  %s alone: %.2f s\n", time.Now().Format(time.TimeOnly), name, alone[name].Seconds())
	}
	if err := h.each(herdBoots, start); err != nil {
		return err
	}

	var mu sync.Mutex
	together := map[string]time.Duration{}
	began := time.Now()
	err = h.each(herdSize, func(name string) error {
		took, err := h.stop(ctx, name)
		mu.Lock()
		defer mu.Unlock()
		together[name] = took
		return err
	})
	if err != nil {
		return err
	}
	reportStops(time.Since(began), values(alone), values(together))
	return nil
}

func values(of map[string]time.Duration) (out []time.Duration) {
	for _, d := range of {
		out = append(out, d)
	}
	slices.Sort(out)
	return out
}

// reportStops takes the times of single stops from the quickest to the slowest.
func reportStops(all time.Duration, alone, together []time.Duration) {
	fmt.Printf("\n%d guests, each of which takes %s to shut down:\n\n%-13s %9s %9s %9s\n", len(alone), herdSlow, "", "quickest", "median", "slowest")
	for _, line := range []struct {
		what string
		took []time.Duration
	}{{"one by one", alone}, {"all at once", together}} {
		n := len(line.took)
		fmt.Printf("%-13s %8.2fs %8.2fs %8.2fs\n", line.what, line.took[0].Seconds(), line.took[n/2].Seconds(), line.took[n-1].Seconds())
	}
	slowest := alone[len(alone)-1]
	ratio := all.Seconds() / slowest.Seconds()
	verdict := "met"
	if ratio > wantedStop {
		verdict = "NOT MET"
	}
	fmt.Printf("%-13s all of them at once in %.2f s: %.2fx of the slowest alone, %.2fx wanted: %s; %.2fx of the slowest among all\n\n", "",
		all.Seconds(), ratio, wantedStop, verdict, all.Seconds()/together[len(together)-1].Seconds())
}

// each does something for every guest, so many at the same time.
func (h *herd) each(atOnce int, do func(name string) error) error {
	var work sync.WaitGroup
	errs, room := make([]error, len(h.names)), make(chan struct{}, atOnce)
	for i, name := range h.names {
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			if err := do(name); err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// create has the agent create a guest: what it owes to one after its end is part of a stop.
func (h *herd) create(ctx context.Context, name string) error {
	if err := h.lab.Guest(name).Forget(ctx); err != nil {
		return err
	}
	file := harness.ImagesPath + "/" + name + ".qcow2"
	if _, err := h.host.Exec(ctx, "qemu-img", "create", "-q", "-f", "qcow2", file, "16M"); err != nil {
		return err
	}
	d := harness.Domain{Name: name, MemoryMiB: 96, Options: fmt.Sprintf("wherry.pace=1s wherry.slow=%s", herdSlow),
		Disks: []harness.Disk{{Target: "vda", Source: file}}}
	op, err := h.agent.Create(ctx, api.DefaultProject, api.CreateRequest{Name: name, DomainXML: d.XML()}, "")
	_, err = h.ended(ctx, op, err)
	return err
}

// start boots a guest, and waits until it writes.
func (h *herd) start(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	guest := h.lab.Guest(name)
	op, err := h.agent.Start(ctx, ref(name), "")
	if _, err = h.ended(ctx, op, err); err != nil {
		return err
	}
	return guest.WaitMore(ctx, h.host, "vda", 1)
}

// stop stops a guest, and gives how long that took the caller.
func (h *herd) stop(ctx context.Context, name string) (time.Duration, error) {
	began := time.Now()
	op, err := h.agent.Stop(ctx, ref(name), api.StopRequest{Timeout: api.Duration(5 * time.Minute)}, "")
	_, err = h.ended(ctx, op, err)
	return time.Since(began), err
}

func (h *herd) remove(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.host.Remove(ctx, name); err != nil {
		return err
	}
	_, err := h.host.Exec(ctx, "rm", "-f", harness.ImagesPath+"/"+name+".qcow2", "/var/lib/wherry/records/"+api.DefaultProject+"/"+name+".yaml")
	return err
}

func (h *herd) ended(ctx context.Context, op api.Operation, err error) (api.Operation, error) {
	if err == nil {
		op, err = h.agent.WaitOperation(ctx, op.ID, nil)
	}
	if err == nil && op.Error != nil {
		err = op.Error
	}
	return op, err
}

func ref(name string) api.Ref { return api.Ref{Project: api.DefaultProject, Name: name} }
