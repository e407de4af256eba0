package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wherry-kvm/wherry/agent/config"
	"github.com/wherry-kvm/wherry/http/api"
)

func templateTable(w io.Writer, templates []api.Template, now time.Time) {
	fmt.Fprintln(w, "ID\tFORMAT\tSIZE\tDIRECT\tPOOL\tSTATE\tRETRY\tUSERS\tMESSAGE")
	for _, t := range templates {
		copies := t.Copies
		if len(copies) == 0 {
			copies = []api.TemplateCopy{{Pool: t.Pool}}
		}
		for _, c := range copies {
			retry := retryText(c, now)
			if t.RemovedAt != nil {
				retry = ""
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Format, sizeOrNone(t.VirtualSize),
				yesNo(t.DirectDownload), cmp.Or(c.Pool, "-"), copyState(t, c), cmp.Or(retry, "-"), someUsers(usersOf(t.Refs, c.Pool)), firstLine(c.Message))
		}
	}
}

// unownedTable follows the templates: what takes room and belongs to none.
func unownedTable(w io.Writer, files []api.UnownedFile) {
	fmt.Fprintln(w, "\nfiles that belong to no template; nothing deletes them")
	for _, f := range files {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", f.Pool, f.Kind, config.FormatSize(f.Bytes), timeText(f.ModifiedAt), f.Path)
	}
}

func sizeOrNone(bytes int64) string {
	if bytes == 0 {
		return "-"
	}
	return config.FormatSize(bytes)
}

// someUsers keeps a table narrow: the first user, and how many more there are.
func someUsers(users []string) string {
	switch len(users) {
	case 0:
		return "-"
	case 1:
		return users[0]
	}
	return fmt.Sprintf("%s +%d", users[0], len(users)-1)
}

// copyState is the state with what belongs to it: how far a fetch is, or why
// it failed. The copy of a removed template matters while something stands on
// it.
func copyState(t api.Template, c api.TemplateCopy) string {
	if t.RemovedAt == nil {
		return ownState(c)
	}
	switch {
	case len(t.Refs) == 0:
		return "removed"
	case c.State == api.CopyReady:
		return "removed, in use"
	}
	return "removed, " + ownState(c)
}

func ownState(c api.TemplateCopy) string {
	switch {
	case c.State == api.CopyDownloading || c.State == api.CopySyncing || c.State == api.CopyVerifying:
		if c.BytesTotal < 0 {
			return c.State + " " + config.FormatSize(c.BytesDone)
		}
		return fmt.Sprintf("%s %d%%", c.State, c.Progress)
	case c.State == api.CopyFailed && c.Code != "":
		return fmt.Sprintf("%s (%s)", c.State, c.Code)
	}
	return cmp.Or(c.State, "-")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func templateInfo(w io.Writer, t api.Template, health map[api.Ref]api.Instance, now time.Time) {
	row(w, "id", t.ID)
	row(w, "url", t.URL)
	row(w, "sync from", t.SyncFrom)
	row(w, "checksum", t.Checksum)
	row(w, "digest", t.Digest)
	row(w, "format", t.Format)
	row(w, "direct download", yesNo(t.DirectDownload))
	row(w, "virtual size", sizeOrNone(t.VirtualSize))
	row(w, "file size", sizeOrNone(t.Size))
	if t.RemovedAt != nil {
		row(w, "removed", agoText(*t.RemovedAt, now))
	}
	for _, c := range t.Copies {
		fmt.Fprintf(w, "\ncopy in %s\n", c.Pool)
		copyInfo(w, t, c, now)
	}
	if len(t.Refs) > 0 {
		fmt.Fprintln(w, "\nused by")
	}
	for _, r := range t.Refs {
		fmt.Fprintf(w, "  %s\n", refText(r, health[api.Ref{Project: r.Project, Name: r.Instance}]))
	}
}

func copyInfo(w io.Writer, t api.Template, c api.TemplateCopy, now time.Time) {
	row(w, "  state", copyState(t, c))
	row(w, "  path", c.Path)
	row(w, "  from", c.Origin)
	if c.BytesTotal > 0 && c.State != api.CopyReady {
		row(w, "  received", fmt.Sprintf("%s of %s", config.FormatSize(c.BytesDone), config.FormatSize(c.BytesTotal)))
	}
	if c.Allocated > 0 && c.State != api.CopyMissing && c.State != api.CopyFailed {
		row(w, "  on disk", config.FormatSize(c.Allocated))
	}
	if c.FailedSince != nil {
		row(w, "  fails since", agoText(*c.FailedSince, now))
	}
	row(w, "  message", c.Message)
	row(w, "  fault", faultText(c))
	if c.State != api.CopyReady && c.Attempts > 0 {
		row(w, "  tried", times(c.Attempts))
	}
	if c.State == api.CopyFailed && c.RetryAt == nil && t.RemovedAt == nil {
		row(w, "  retry", retryAdvice(t.ID, c, now))
	} else if c.RetryAt != nil {
		row(w, "  retry", retryText(c, now)+", "+timeText(*c.RetryAt))
	}
	row(w, "  updated", timeText(c.UpdatedAt))
}

func refText(r api.TemplateRef, i api.Instance) string {
	text := fmt.Sprintf("%s disk %s: %s", api.Ref{Project: r.Project, Name: r.Instance}, r.Disk, r.Volume)
	switch r.Known {
	case api.RefRecorded:
		text += " (recorded, but not in its chain)"
	case api.RefFound:
		text += " (in its chain, but not recorded)"
	}
	if i.Health == api.HealthDegraded {
		text += "\n    " + healthText(i)
	}
	return text
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// agoText is a time and how long ago that was.
func agoText(t, now time.Time) string {
	if ago := now.Sub(t).Round(time.Second); ago >= time.Second {
		return fmt.Sprintf("%s (%s ago)", timeText(t), durationText(ago))
	}
	return timeText(t)
}
