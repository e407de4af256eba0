// Command bench measures Wherry against what it stands on. It needs the lab (tests/README.md).
//
// Migrations: what one costs compared with libvirt's own, virsh migrate --p2p with the same flags, XML and kind of disk,
// on a link of 1 Gbit: wall time, bytes on the wire, downtime.
//
// Templates: an image downloaded from a server on the same host, compared with curl, tee and sha256sum onto the same disk;
// and one from the other host, compared with what the link gives.
//
// Stops: twenty guests stopped at once, compared with the slowest of them alone.
//
//	go run ./tests/bench [-runs 5] [-data 1024] [-image 2048] [migrations|templates|stop]
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"time"
)

const rate = "1gbit"

func main() {
	runs := flag.Int("runs", 5, "measurements of each kind by each tool")
	data := flag.Int64("data", 1024, "MiB of data in the template of the migrations, half of its size")
	image := flag.Int64("image", 2048, "MiB of the images that are fetched, a multiple of 32")
	flag.Parse()
	parts := flag.Args()
	if len(parts) == 0 {
		parts = []string{"templates", "migrations", "stop"}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, part := range parts {
		err := fmt.Errorf("there is no part %q: migrations, templates, stop", part)
		switch part {
		case "migrations":
			err = bench(ctx, *runs, *data<<20)
		case "templates":
			err = templates(ctx, *runs, *image<<20)
		case "stop":
			err = stops(ctx)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
}

// kind is a way to carry a disk over, in the words of both tools.
type kind struct {
	name   string
	wherry []string // options of wherry migrate
	virsh  string   // virsh's storage option
	seeded bool     // the destination's volume is filled from its template first
	linked bool     // it stands on the destination's template
}

var kinds = []kind{
	{name: "linked", wherry: []string{"--mode", "linked"}, virsh: "--copy-storage-inc", linked: true},
	{name: "full, seeded", wherry: []string{"--mode", "full"}, virsh: "--copy-storage-inc", seeded: true},
	{name: "full, copied", wherry: []string{"--mode", "full", "--seed", "off"}, virsh: "--copy-storage-all"},
}

// cost is what one migration took.
type cost struct {
	wall     time.Duration // as the caller waits, filling the volume included
	perform  time.Duration // libvirt's part of it: Wherry's phase "perform", virsh migrate
	filling  time.Duration // filling the destination's volume, no part of the control
	wire     int64         // bytes sent and received by the source
	downtime time.Duration
	phases   map[string]time.Duration // of Wherry
}

func bench(ctx context.Context, runs int, data int64) error {
	r, err := newRig(ctx, data)
	if err != nil {
		return err
	}
	defer r.close()
	fmt.Printf("\nmedians of %d, on a link of %s, %d MiB in the template:\n\n", runs, rate, data>>20)
	fmt.Printf("%-13s %-7s %9s %9s %9s %9s %9s\n", "", "", "wall", "libvirt", "filling", "wire", "downtime")
	for _, k := range kinds {
		by := map[string][]cost{}
		// Turn by turn, so that whatever else the machine does falls on both. The first pair warms the caches.
		for n := range runs + 1 {
			for _, tool := range []string{"virsh", "wherry"} {
				c, err := r.run(ctx, k, map[string]func(context.Context, kind) (cost, error){"virsh": r.virsh, "wherry": r.wherry}[tool])
				if err != nil {
					return fmt.Errorf("%s by %s: %w", k.name, tool, err)
				}
				fmt.Fprintf(os.Stderr, "%s  %s, %s, %d of %d: %.2f s\n", time.Now().Format(time.TimeOnly), k.name, tool, n, runs, c.wall.Seconds())
				if n > 0 {
					by[tool] = append(by[tool], c)
				}
			}
		}
		report(k, median(by["virsh"]), median(by["wherry"]))
	}
	return nil
}

// median takes the middle of each figure by itself.
func median(costs []cost) cost {
	return cost{
		wall:     middle(costs, func(c cost) time.Duration { return c.wall }),
		perform:  middle(costs, func(c cost) time.Duration { return c.perform }),
		filling:  middle(costs, func(c cost) time.Duration { return c.filling }),
		wire:     middle(costs, func(c cost) int64 { return c.wire }),
		downtime: middle(costs, func(c cost) time.Duration { return c.downtime }),
		phases:   phases(costs),
	}
}

func phases(costs []cost) map[string]time.Duration {
	out := map[string]time.Duration{}
	for name := range costs[0].phases {
		out[name] = middle(costs, func(c cost) time.Duration { return c.phases[name] })
	}
	return out
}

func middle[C any, T cmp.Ordered](costs []C, of func(C) T) T {
	values := make([]T, len(costs))
	for i, c := range costs {
		values[i] = of(c)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// Wherry may take this much longer than virsh: whichever is more.
const (
	allowedShare = 0.05
	allowedTime  = 300 * time.Millisecond
)

func report(k kind, virsh, wherry cost) {
	line := func(tool string, c cost) {
		fmt.Printf("%-13s %-7s %8.2fs %8.2fs %8.2fs %6.1f MB %6d ms\n", k.name, tool, c.wall.Seconds(), c.perform.Seconds(),
			c.filling.Seconds(), float64(c.wire)/1e6, c.downtime.Milliseconds())
	}
	line("virsh", virsh)
	line("wherry", wherry)
	ratio := func(a, b float64) float64 { return a / max(b, 1e-9) }
	fmt.Printf("%-13s %-7s %8.2fx %8.2fx %9s %8.2fx %8.2fx\n", k.name, "ratio", ratio(wherry.wall.Seconds(), virsh.wall.Seconds()),
		ratio(wherry.perform.Seconds(), virsh.perform.Seconds()), "", ratio(float64(wherry.wire), float64(virsh.wire)),
		ratio(wherry.downtime.Seconds(), virsh.downtime.Seconds()))
	over, allowed := wherry.wall-virsh.wall, max(time.Duration(float64(virsh.wall)*allowedShare), allowedTime)
	fmt.Printf("%-13s phases of wherry in ms:", "")
	for _, name := range slices.Sorted(maps.Keys(wherry.phases)) {
		fmt.Printf(" %s %d", name, wherry.phases[name].Milliseconds())
	}
	verdict := "met"
	if over > allowed {
		verdict = "NOT MET"
	}
	fmt.Printf("\n%-13s control: %d ms beside libvirt's part and the filling; %+d ms against virsh, %d allowed: %s\n\n", "",
		(wherry.wall - wherry.perform - wherry.filling).Milliseconds(), over.Milliseconds(), allowed.Milliseconds(), verdict)
}
