package schedule

import (
	"fmt"
	"slices"
)

// Legal returns an error for a schedule that no host could follow: names what is not there, breaks what is broken, or
// looks where nobody answers.
func (s Schedule) Legal() error {
	j := judge{labels: map[string]Act{}, broken: map[string]bool{}}
	for _, i := range s.Instances {
		if err := i.legal(); err != nil {
			return fmt.Errorf("instance %q: %w", i.Name, err)
		}
		if j.instance(i.Name) != nil {
			return fmt.Errorf("instance %q is there twice", i.Name)
		}
		j.instances = append(j.instances, i)
	}
	if len(j.instances) == 0 || len(s.Acts) == 0 {
		return fmt.Errorf("%d instances and %d acts: nothing would happen", len(j.instances), len(s.Acts))
	}
	for n, a := range s.Acts {
		if err := j.act(a); err != nil {
			return fmt.Errorf("act %d, %q %q: %w", n+1, a.When, a, err)
		}
	}
	return nil
}

func (i Instance) legal() error {
	if !host(i.Host) || i.Pool != DefaultPool && i.Pool != SmallPool {
		return fmt.Errorf("host %q, pool %q", i.Host, i.Pool)
	}
	if len(i.Disks) < 1 || len(i.Disks) > 3 {
		return fmt.Errorf("%d disks", len(i.Disks))
	}
	root := i.Disks[0].Stands
	if root == Shared || root == CDROM || i.Maker == ByAgent && root == Alone {
		return fmt.Errorf("made by %s, its root disk is %s", i.Maker, root)
	}
	for n, d := range i.Disks {
		if d.Target[2] != byte('a'+n) {
			return fmt.Errorf("disk %d is %q", n, d.Target)
		}
		if d.Format == "raw" && (d.Stands.layered() || d.Stands == Full) {
			return fmt.Errorf("disk %q is raw and %s", d.Target, d.Stands)
		}
	}
	return nil
}

func host(name string) bool { return name == "a" || name == "b" }

// judge is what a schedule has brought about so far.
type judge struct {
	instances []Instance
	labels    map[string]Act  // the requests, by label
	broken    map[string]bool // by what puts it right, and the host
}

func (j *judge) instance(name string) *Instance {
	at := slices.IndexFunc(j.instances, func(i Instance) bool { return i.Name == name })
	if at < 0 {
		return nil
	}
	return &j.instances[at]
}

func (j *judge) act(a Act) error {
	if err := j.trigger(a.When); err != nil {
		return err
	}
	switch a.Do {
	case Migrate, Stop, Start, Rebuild:
		return j.request(a)
	case Cancel:
		if _, ok := j.labels[a.Of]; !ok {
			return fmt.Errorf("there is no operation %q yet", a.Of)
		}
		return nil
	case KillQEMU, Lose:
		of, ok := j.labels[a.Of]
		if !ok || of.Do != Migrate || a.Do == Lose && (!a.When.Moment.Held() || a.When.Of != a.Of) {
			return fmt.Errorf("there is no migration %q yet, or nothing to lose", a.Of)
		}
		return nil
	case Slow:
		if !host(a.Host) {
			return fmt.Errorf("there is no host %q", a.Host)
		}
		return nil
	}
	return j.fault(a)
}

func (j *judge) request(a Act) error {
	if j.instance(a.Instance) == nil {
		return fmt.Errorf("there is no instance %q", a.Instance)
	}
	if _, taken := j.labels[a.Label]; taken || a.Label == "" {
		return fmt.Errorf("label %q is taken or empty", a.Label)
	}
	j.labels[a.Label] = a
	return nil
}

func (j *judge) fault(a Act) error {
	if a.Do != Fill && a.Do != Free && !host(a.Host) {
		return fmt.Errorf("there is no host %q", a.Host)
	}
	if a.Do == Fill {
		of, ok := j.labels[a.Of]
		if !ok || of.Do != Migrate {
			return fmt.Errorf("there is no migration %q yet", a.Of)
		}
		for _, i := range j.instances {
			// The one that moves stands in the pool, and no other, which would be paused for want of space.
			if (i.Pool == SmallPool) != (i.Name == of.Instance) {
				return fmt.Errorf("instance %q, pool %q", i.Name, i.Pool)
			}
		}
	}
	mend, breaks := mends[a.Do]
	if !breaks {
		mend = a.Do
	}
	key := string(mend) + " " + a.Host
	if j.broken[key] == breaks {
		return fmt.Errorf("broken already: %v", j.broken[key])
	}
	j.broken[key] = breaks
	return nil
}

func (j *judge) trigger(t Trigger) error {
	if !slices.Contains(Moments, t.Moment) {
		return fmt.Errorf("there is no moment %q", t.Moment)
	}
	switch t.Moment {
	case AtOnce:
		return nil
	case Blocks, Moved:
		if j.instance(t.Of) == nil || t.Moment == Blocks && t.N < 1 {
			return fmt.Errorf("there is no instance %q that writes %d blocks", t.Of, t.N)
		}
		return nil
	}
	of, ok := j.labels[t.Of]
	if !ok {
		return fmt.Errorf("there is no operation %q yet", t.Of)
	}
	if of.Do != Migrate && t.Moment != Begun && t.Moment != Ended {
		return fmt.Errorf("operation %q is a %s", t.Of, of.Do)
	}
	if t.Moment == Percent && (t.N < 1 || t.N > 99) {
		return fmt.Errorf("%d percent", t.N)
	}
	if !t.Moment.Held() && (j.broken[string(StartAgent)+" a"] || j.broken[string(StartAgent)+" b"]) {
		return fmt.Errorf("an agent is down: only what is seen from outside is seen")
	}
	return nil
}
