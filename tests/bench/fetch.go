package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/http/client"
	"github.com/wherry-kvm/wherry/tests/harness"
)

// Aims of bringing templates.
const (
	allowedDownload = 1.05 // times what curl, tee and sha256sum take that leave the file on the disk, too
	wantedOfLink    = 0.95 // share of what the link gives, or of that in proportion to what is allocated
)

// way is one way to bring an image; the ways of a comparison take turns.
type way struct {
	name string
	run  func(context.Context, picture) (fetched, error)
}

// templates measures how images are brought: from a server on the host itself, and from the other host.
func templates(ctx context.Context, runs int, size int64) error {
	lab, err := harness.Connect(ctx)
	if err != nil {
		return err
	}
	for _, h := range lab.Hosts() {
		if err := h.Reset(ctx); err != nil {
			return err
		}
	}
	folder, err := os.MkdirTemp(os.Getenv("WHERRY_LAB_DIR"), "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	g, err := newGallery(ctx, lab, folder, size)
	if err != nil {
		return err
	}
	return errors.Join(g.downloads(ctx, lab.A, runs), g.syncs(ctx, lab, runs), g.close())
}

func (g *gallery) downloads(ctx context.Context, h *harness.Host, runs int) error {
	url := func(p picture) string { return g.origins[h].URL("plain", p.name) }
	ways := []way{
		{"curl | tee | sha256sum", func(ctx context.Context, p picture) (fetched, error) { return curlFetch(ctx, h, p, url(p), false) }},
		{"the same, then sync", func(ctx context.Context, p picture) (fetched, error) { return curlFetch(ctx, h, p, url(p), true) }},
		{"wherry", func(ctx context.Context, p picture) (fetched, error) { return wherryFetch(ctx, h, p, url(p), "") }},
	}
	fmt.Printf("\nmedians of %d, %d MiB from a server on the same host; wherry and the second way end when the file is on the disk:\n\n", runs, g.size>>20)
	for _, p := range g.pictures {
		medians, err := turns(ctx, p, ways, runs)
		if err != nil {
			return err
		}
		for i, m := range medians {
			fmt.Printf("%-8s %-24s %7.2fs\n", p.name, ways[i].name, m.wall.Seconds())
		}
		plain, synced := medians[2].wall.Seconds()/medians[0].wall.Seconds(), medians[2].wall.Seconds()/medians[1].wall.Seconds()
		fmt.Printf("%-8s ratio %.2f to what is on the disk, %.2f to what is not yet; at most %.2f of the first: %s\n\n", p.name, synced, plain,
			allowedDownload, verdict(synced <= allowedDownload))
	}
	return nil
}

func (g *gallery) syncs(ctx context.Context, lab *harness.Lab, runs int) error {
	for _, h := range lab.Hosts() {
		if err := h.Rate(ctx, rate); err != nil {
			return err
		}
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, h := range lab.Hosts() {
			if err := h.Rate(ctx, "off"); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}
	}()
	fmt.Printf("medians of %d, %d MiB from the other host, on a link of %s:\n\n", runs, g.size>>20, rate)
	for _, p := range g.pictures {
		if err := g.sync(ctx, lab, p, runs); err != nil {
			return err
		}
	}
	return nil
}

func (g *gallery) sync(ctx context.Context, lab *harness.Lab, p picture, runs int) error {
	id, err := hold(ctx, lab.B, p, g.origins[lab.B].URL("plain", p.name))
	if err != nil {
		return err
	}
	ways := []way{
		{"the link alone", func(ctx context.Context, p picture) (fetched, error) {
			return plainFetch(ctx, lab.A, g.origins[lab.B].URL("plain", p.name))
		}},
		// Its URL leads nowhere: what comes, comes from the other host.
		{"wherry", func(ctx context.Context, p picture) (fetched, error) {
			return wherryFetch(ctx, lab.A, p, "http://127.0.0.1:1/"+id, lab.B.URL())
		}},
	}
	medians, err := turns(ctx, p, ways, runs)
	if err != nil {
		return err
	}
	for i, m := range medians {
		fmt.Printf("%-8s %-24s %7.2fs %9.1f MB on the wire\n", p.name, ways[i].name, m.wall.Seconds(), float64(m.wire)/1e6)
	}
	link := float64(g.size) / medians[0].wall.Seconds()
	share := float64(p.data) / medians[1].wall.Seconds() / link
	fmt.Printf("%-8s %.1f MB/s of data, the link gives %.1f: %.1f %%; at least %.0f %%: %s\n\n", p.name, float64(p.data)/medians[1].wall.Seconds()/1e6,
		link/1e6, share*100, wantedOfLink*100, verdict(share >= wantedOfLink))
	return drop(ctx, lab.B, id)
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "NOT MET"
}

// turns runs each way in turn, so that whatever else the machine does falls on all, and begins each turn with another of
// them. The first turn warms the caches.
func turns(ctx context.Context, p picture, ways []way, runs int) ([]fetched, error) {
	all := make([][]fetched, len(ways))
	for n := range runs + 1 {
		for i := range ways {
			i = (i + n) % len(ways)
			f, err := bounded(ctx, p, ways[i])
			if err != nil {
				return nil, fmt.Errorf("%s by %s: %w", p.name, ways[i].name, err)
			}
			fmt.Fprintf(os.Stderr, "%s  %s, %s, %d of %d: %.2f s\n", time.Now().Format(time.TimeOnly), p.name, ways[i].name, n, runs, f.wall.Seconds())
			if n > 0 {
				all[i] = append(all[i], f)
			}
		}
	}
	medians := make([]fetched, len(ways))
	for i, fs := range all {
		medians[i] = fetched{wall: middle(fs, func(f fetched) time.Duration { return f.wall }), wire: middle(fs, func(f fetched) int64 { return f.wire })}
	}
	return medians, nil
}

func bounded(ctx context.Context, p picture, w way) (fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return w.run(ctx, p)
}

// hold has a host keep an image, for others to fetch.
func hold(ctx context.Context, h *harness.Host, p picture, url string) (id string, err error) {
	agent, err := client.New("unix:"+h.Socket(), client.TLS{})
	if err != nil {
		return "", err
	}
	defer agent.Close()
	id = fmt.Sprintf("held-%s-%d", p.name, time.Now().UnixNano())
	op, err := agent.RegisterTemplate(ctx, api.TemplateRequest{ID: id, URL: url, Checksum: p.sum, Format: "raw"}, "")
	if err == nil {
		op, err = agent.WaitOperation(ctx, op.ID, func(api.Operation) {})
	}
	if err == nil && op.Error != nil {
		err = op.Error
	}
	return id, err
}

func drop(ctx context.Context, h *harness.Host, id string) error {
	agent, err := client.New("unix:"+h.Socket(), client.TLS{})
	if err != nil {
		return err
	}
	defer agent.Close()
	_, err = agent.RemoveTemplate(ctx, id)
	return err
}
