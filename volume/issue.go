package volume

import (
	"fmt"
	"strings"
)

// The codes of Issue.
const (
	IssueDirty      = "dirty"             // refcounts may be stale; normal on an open image with lazy refcounts
	IssueCorrupt    = "corrupt"           // QEMU marked the image damaged
	IssueDataFile   = "data-file"         // guest data lies in another file
	IssueEncrypted  = "encrypted"         // the image is encrypted
	IssueSnapshots  = "snapshots-present" // the image has internal snapshots
	IssueUnknown    = "unknown-feature"   // the image needs a feature this agent does not know
	IssueIncomplete = "incomplete-chain"  // the last layer names a backing file that is not part of the chain
)

// Issue is one reason why a chain may not be migrated or served as it is.
type Issue struct {
	// Code is one of the Issue constants.
	Code string
	// Layer is the path of the layer concerned.
	Layer string
	// Detail says in words what was found.
	Detail string
}

func (i Issue) String() string { return fmt.Sprintf("%s: %q: %s", i.Code, i.Layer, i.Detail) }

// Issues says why the chain may not be migrated or served, active layer first;
// none means that nothing in the headers stands against it. Whether a dirty
// active layer matters depends on whether somebody has it open, which only the
// caller knows.
func (c Chain) Issues() []Issue {
	var out []Issue
	for i, l := range c {
		out = append(out, l.issues()...)
		if i == len(c)-1 && l.BackingFile != "" {
			out = append(out, Issue{IssueIncomplete, l.Path, fmt.Sprintf("backing file %q was not read", l.BackingFile)})
		}
	}
	return out
}

func (l Layer) issues() []Issue {
	var out []Issue
	add := func(when bool, code, format string, args ...any) {
		if when {
			out = append(out, Issue{code, l.Path, fmt.Sprintf(format, args...)})
		}
	}
	add(l.Corrupt, IssueCorrupt, "the image is marked corrupt")
	add(l.Dirty, IssueDirty, "the image is marked dirty (lazy refcounts: %v)", l.LazyRefcounts)
	add(l.ExternalData, IssueDataFile, "guest data lies in data file %q", l.DataFile)
	add(l.Encrypted, IssueEncrypted, "the image is encrypted")
	add(l.Snapshots > 0, IssueSnapshots, "%d internal snapshots: %s", l.Snapshots, strings.Join(quoted(l.SnapshotNames), ", "))
	add(l.UnknownIncompatible != 0, IssueUnknown, "unknown incompatible features %#x", l.UnknownIncompatible)
	return out
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return out
}
