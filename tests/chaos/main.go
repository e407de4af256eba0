// Command chaos breaks what can break while instances move between the two hosts of a lab, and looks afterwards whether
// anything was lost, stuck or left behind. It needs root and the lab (tests/README.md), and brings up one of its own.
//
// What happens follows from a seed (package schedule). For each seed it makes the instances, does what the schedule says,
// puts everything right again, waits until all has settled, and judges from outside: by virsh, files, processes and what
// the guests find on their disks. A seed that fails prints its schedule and what happened when, keeps the hosts' logs,
// and says how to have it again; the next one begins on fresh hosts.
//
//	go run ./tests/chaos [-base 1] [-seeds 200] [-labs 1]   so many seeds, from the first on, on so many labs
//	go run ./tests/chaos -sample                            ten in which everything occurs: make test
//	go run ./tests/chaos -seed 17                           this one
//	go run ./tests/chaos -seed 17 -print                    what it would do
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

// options are the command line's.
type options struct {
	seed  string // this one alone
	base  uint64
	seeds uint64
	logs  string // folder that keeps what failing seeds leave
	labs  int    // side by side
	only  bool   // print, and do nothing
	few   bool   // the sample
}

func main() {
	var o options
	flag.StringVar(&o.seed, "seed", "", "run this seed alone")
	flag.Uint64Var(&o.base, "base", 1, "the first seed")
	flag.Uint64Var(&o.seeds, "seeds", 200, "how many")
	flag.IntVar(&o.labs, "labs", 1, "how many labs work side by side")
	flag.StringVar(&o.logs, "logs", ".test/chaos", "folder for what failing seeds leave")
	flag.BoolVar(&o.few, "sample", false, "run a few seeds in which everything occurs, as make test does")
	flag.BoolVar(&o.only, "print", false, "print the schedules and do nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.few {
		o.base, o.seeds = schedule.SampleBase, schedule.SampleSize
	}
	if o.seed != "" {
		n, err := strconv.ParseUint(o.seed, 10, 64)
		if err != nil {
			return fmt.Errorf("seed %q is no number", o.seed)
		}
		o.base, o.seeds = n, 1
	}
	if o.only {
		for n := range o.seeds {
			fmt.Println(schedule.Generate(o.base + n))
		}
		return nil
	}
	logs, err := filepath.Abs(o.logs)
	if err != nil {
		return err
	}
	// The labs are taken down, before and after: they must not be ones that somebody works with.
	folder := cmp.Or(os.Getenv("WHERRY_LAB_DIR"), filepath.Join(filepath.Dir(filepath.Dir(logs)), ".lab-chaos"))
	c := campaign{options: o, logs: logs, tally: tally{outcomes: map[string]int{}}}
	began := time.Now()
	err = c.all(ctx, folder)
	fmt.Print(c.tally.summary(time.Since(began)))
	if err == nil && len(c.tally.failed) > 0 {
		err = fmt.Errorf("%d of %d seeds failed", len(c.tally.failed), c.tally.ran)
	}
	return err
}
