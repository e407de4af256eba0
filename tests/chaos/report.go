package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/tests/chaos/schedule"
)

// result is what became of a seed.
type result struct {
	s         schedule.Schedule
	journal   *journal
	rig       *rig
	broken    []string // invariants; a seed with none has passed
	ended     []string // how each operation ended
	decisions int      // that were asked of a person, and given
	undecided int      // instances of which a person has to choose a copy
	late      int      // triggers that did not come
	// booted, acted and took are when all guests wrote, the last act was done, and all was judged and taken away.
	booted, acted, took time.Duration
}

// line is the result in a line.
func (r *result) line() string {
	word := "ok  "
	if len(r.broken) > 0 {
		word = "FAIL"
	}
	counts := map[string]int{}
	for _, e := range r.ended {
		counts[e]++
	}
	return fmt.Sprintf("seed %-4d %s %5.1fs (%.0f for guests, %.0f for %d acts)  %s", r.s.Seed, word, r.took.Seconds(), r.booted.Seconds(),
		(r.acted - r.booted).Seconds(), len(r.s.Acts), list(counts))
}

// list names everything that was counted, the names in order.
func list(counts map[string]int) string {
	var out []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[what]; n > 1 {
			what = fmt.Sprintf("%d %s", n, what)
		}
		out = append(out, what)
	}
	return strings.Join(out, ", ")
}

// replay is the command that runs the seed again.
func (r *result) replay() string { return fmt.Sprintf("make chaos SEED=%d", r.s.Seed) }

// report is all that is known of a seed that failed.
func (r *result) report(logs string) string {
	return fmt.Sprintf("\n%s\nwhat happened, in seconds:\n%s\nbroken:\n  %s\n\nlogs: %s\nagain: %s\n",
		r.s, r.journal.text(), strings.Join(r.broken, "\n  "), logs, r.replay())
}

// write saves the report, which of a seed that has passed tells where its time went.
func (r *result) write(file, logs string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(r.report(logs)), 0o644)
}

// keep saves the report and what the hosts know.
func (r *result) keep(folder string) error {
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		return err
	}
	errs := []error{r.write(filepath.Join(folder, "report.txt"), folder)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, h := range r.rig.hosts() {
		to := filepath.Join(folder, h.Name)
		// The host's state folder holds the logs; the agent's socket lies in a folder of it.
		state := filepath.Dir(filepath.Dir(h.Socket()))
		script := `mkdir -p "$1" && cp -r "$0"/*.log "$0/console" "$1"`
		if out, err := exec.CommandContext(ctx, "sh", "-c", script, state, to).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s", err, out))
		}
		for name, command := range map[string]string{
			"qemu.log":    "tail -n 400 /var/log/libvirt/qemu/*.log",
			"domains.txt": "virsh list --all; for d in $(virsh -q list --all --name); do virsh domstate --reason $d; virsh dumpxml $d; done",
			"files.txt":   "find /var/lib/libvirt/images /srv /var/lib/wherry -ls; ps axww; cat /proc/self/mountinfo",
		} {
			text, err := h.Exec(ctx, "sh", "-c", command)
			if err != nil {
				text += "\n" + err.Error()
			}
			errs = append(errs, os.WriteFile(filepath.Join(to, name), []byte(text), 0o644))
		}
	}
	return errors.Join(errs...)
}

// tally sums the results up.
type tally struct {
	ran, decisions, acts, late int
	failed                     []*result
	outcomes                   map[string]int
}

func (t *tally) add(r *result) {
	t.ran++
	t.decisions += r.decisions
	t.acts += len(r.s.Acts)
	t.late += r.late
	if len(r.broken) > 0 {
		t.failed = append(t.failed, r)
	}
	for _, e := range r.ended {
		t.outcomes[e]++
	}
}

func (t *tally) summary(took time.Duration) string {
	var out strings.Builder
	fmt.Fprintf(&out, "\n%d seeds, %d failed, in %s; %d acts, of which %d waited in vain for their moment; %d decisions asked of a person\n",
		t.ran, len(t.failed), took.Round(time.Second), t.acts, t.late, t.decisions)
	for _, what := range slices.Sorted(maps.Keys(t.outcomes)) {
		fmt.Fprintf(&out, "%5d %s\n", t.outcomes[what], what)
	}
	for _, r := range t.failed {
		fmt.Fprintf(&out, "%s: %s\n", r.replay(), strings.Join(r.broken, "; "))
	}
	return out.String()
}
