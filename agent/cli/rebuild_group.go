package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
)

// What became of an instance of a group.
const (
	groupRebuilt  = "rebuilt"
	groupFailed   = "failed"
	groupRefused  = "refused"
	groupLeft     = "left running"
	groupNotBegun = "not begun"
)

// groupFlags say which instances, and how.
type groupFlags struct {
	all, keepGoing bool
	match          []string
	parallel       int
}

func (f *groupFlags) register(cmd *cobra.Command) {
	s := cmd.Flags()
	s.BoolVar(&f.all, "all", false, "rebuild all instances of the project that match")
	s.StringArrayVar(&f.match, "match", nil, "with --all: only those whose name matches, such as 'web-*'; repeatable")
	s.IntVar(&f.parallel, "parallel", 1, "with --all: so many at once")
	s.BoolVar(&f.keepGoing, "keep-going", false, "with --all: go on with the others when one is refused or fails")
}

// check finds flags that do not go together. A group has to be named: an empty
// list of patterns would be every instance there is.
func (f *groupFlags) check(one rebuildFlags) error {
	switch {
	case !f.all && (len(f.match) > 0 || f.keepGoing || f.parallel != 1):
		return errors.New("--match, --parallel and --keep-going go with --all")
	case !f.all:
		return nil
	case len(f.match) == 0:
		return errors.New("say which with --match; --match '*' is every instance")
	case f.parallel < 1:
		return errors.New("--parallel is at least 1")
	case one.noWait:
		return errors.New("--no-wait does not go with --all")
	}
	for _, pattern := range f.match {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("--match %q: %w", pattern, err)
		}
	}
	return nil
}

func (f *groupFlags) matches(name string) bool {
	return slices.ContainsFunc(f.match, func(pattern string) bool {
		ok, _ := path.Match(pattern, name) // check has looked at it
		return ok
	})
}

// groupResult is what became of one instance.
type groupResult struct {
	Name      string `json:"name"`
	Result    string `json:"result"`
	Operation string `json:"operation,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

// rollout rebuilds a group.
type rollout struct {
	*app
	g     agent
	r     api.RebuildRequest
	flags groupFlags
	yes   bool

	refs []api.Ref

	mu      sync.Mutex
	results []groupResult // one for each of refs
	stopped bool          // no other is begun
}

func (o *rollout) run(ctx context.Context) error {
	const what = "rebuild the group"
	instances, err := o.g.Instances(ctx, o.global.project)
	if err != nil {
		return failed(what, err)
	}
	for _, i := range instances {
		if o.flags.matches(i.Name) {
			ref := api.Ref{Project: i.Project, Name: i.Name}
			o.refs = append(o.refs, ref)
			o.results = append(o.results, groupResult{Name: ref.String(), Result: groupNotBegun})
		}
	}
	if len(o.results) == 0 {
		return failed(what, fmt.Errorf("no instance matches %s", strings.Join(o.flags.match, ", ")))
	}
	refused, err := o.plan(ctx)
	if err != nil {
		return failed(what, err)
	}
	if refused > 0 && !o.flags.keepGoing {
		return o.summary(refusedGroup(refused, len(o.results)))
	}
	if !o.yes {
		if err := o.confirm(ctx, fmt.Sprintf("replace the disks of %d instances?", len(o.results)-refused)); err != nil {
			return failed(what, err)
		}
	}
	var work sync.WaitGroup
	for range o.flags.parallel {
		work.Go(func() {
			for at := o.next(ctx); at >= 0; at = o.next(ctx) {
				o.one(ctx, at)
			}
		})
	}
	work.Wait()
	return o.summary(o.verdict())
}

// plan asks of each what would be done: what is refused is known before
// anything is lost.
func (o *rollout) plan(ctx context.Context) (refused int, err error) {
	for i, ref := range o.refs {
		plan, err := o.g.PlanRebuild(ctx, ref, o.r)
		switch api.CodeOf(err) {
		case "precondition", "busy", "not-found":
			refused++
			o.results[i].Result, o.results[i].Detail = groupRefused, reasonsText(err)
			continue
		}
		if err != nil {
			return refused, err
		}
		if !o.yes {
			rebuildQuestion(o.err, ref.String(), plan)
		}
	}
	return refused, nil
}

func reasonsText(err error) string {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok || len(p.Reasons) == 0 {
		return err.Error()
	}
	out := make([]string, len(p.Reasons))
	for i, r := range p.Reasons {
		out[i] = r.Detail
	}
	return strings.Join(out, "; ")
}

// next takes the first that is not begun; -1 where there is none, or none is to
// be begun any more.
func (o *rollout) next(ctx context.Context) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped || ctx.Err() != nil {
		return -1
	}
	at := slices.IndexFunc(o.results, func(r groupResult) bool { return r.Result == groupNotBegun })
	if at >= 0 {
		// If nothing is heard of it again, it goes on without us.
		o.results[at].Result = groupLeft
	}
	return at
}

func (o *rollout) one(ctx context.Context, at int) {
	name := o.results[at].Name
	op, err := o.g.Rebuild(ctx, o.refs[at], o.r, newKey())
	if err == nil {
		o.say("%s: begun (%s)", name, op.ID)
		o.mu.Lock()
		o.results[at].Operation = op.ID
		o.mu.Unlock()
		var last api.Operation
		if last, err = o.g.WaitOperation(ctx, op.ID, func(api.Operation) {}); err == nil {
			op = last
		}
	}
	result := groupResult{Name: name, Operation: op.ID, Result: groupRebuilt}
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		result.Result, result.Detail = groupFailed, reasonsText(err)
	case op.Status != api.StatusSucceeded:
		result.Result, result.Detail = groupFailed, op.Status
		if op.Error != nil {
			result.Detail = op.Error.Error()
		}
	}
	o.mu.Lock()
	o.results[at] = result
	o.stopped = o.stopped || result.Result == groupFailed && !o.flags.keepGoing
	o.mu.Unlock()
	if result.Detail != "" {
		o.say("%s: %s: %s", name, result.Result, result.Detail)
		return
	}
	o.say("%s: %s", name, result.Result)
}

// say writes whole lines, of whichever instance.
func (o *rollout) say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(o.err, format+"\n", args...)
}

// verdict is the error of a group of which not all were rebuilt.
func (o *rollout) verdict() error {
	count := map[string]int{}
	for _, r := range o.results {
		count[r.Result]++
	}
	if count[groupRebuilt] == len(o.results) {
		return nil
	}
	var words []string
	for _, result := range []string{groupFailed, groupRefused, groupLeft, groupNotBegun} {
		if n := count[result]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, result))
		}
	}
	return fmt.Errorf("%d of %d instances were rebuilt; %s", count[groupRebuilt], len(o.results), strings.Join(words, ", "))
}

// refusedGroup is the refusal of a group of which nothing was begun.
func refusedGroup(refused, all int) error {
	return api.NewProblem("precondition", "%d of %d instances cannot be rebuilt, and none was touched", refused, all).
		WithHint("with --keep-going the others are rebuilt")
}

// summary tells what became of each, and ends as the group did.
func (o *rollout) summary(err error) error {
	if printed := o.print(o.results, func(w io.Writer) { groupTable(w, o.results) }); printed != nil {
		return printed
	}
	if err == nil {
		return nil
	}
	return &failure{what: "rebuild the group", err: err, shown: true}
}
