package volume

import (
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FolderIdentity names the storage that the folder dir lies on, in words that
// mean the same on every host: "nfs:server:/export/folder". It is empty where
// the host alone cannot know, as for a local file system (which may be a shared
// device) or a server named localhost; then a probe decides. Two different
// identities may still be one storage, reached by two names.
func FolderIdentity(dir string) (string, error) {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("folder identity: %w", err)
	}
	if resolved, err = filepath.Abs(resolved); err != nil {
		return "", fmt.Errorf("folder identity: %w", err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, resolved, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return "", fmt.Errorf("folder identity: %w", &os.PathError{Op: "stat", Path: resolved, Err: err})
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("folder identity: %w", err)
	}
	m, ok := findMount(string(table), st.Mnt_id)
	if !ok {
		return "", fmt.Errorf("folder identity: mount %d of %q is not in the mount table", st.Mnt_id, resolved)
	}
	return m.identity(resolved), nil
}

// FreeBytes is what an unprivileged writer may still write to the file system
// of dir, in bytes.
func FreeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Frsize, nil
}

// mount is one line of /proc/self/mountinfo, as proc(5) describes it.
type mount struct {
	root, point, fstype, source string
}

func findMount(table string, id uint64) (mount, bool) {
	for line := range strings.Lines(table) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 2 || left[0] != strconv.FormatUint(id, 10) {
			continue
		}
		return mount{root: unescape(left[3]), point: unescape(left[4]), fstype: right[0], source: unescape(right[1])}, true
	}
	return mount{}, false
}

// unescape undoes the octal escapes for space, tab, newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// identity names what lies under the folder dir of this mount.
func (m mount) identity(dir string) string {
	below, err := filepath.Rel(m.point, dir)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return ""
	}
	switch m.fstype {
	case "nfs", "nfs4":
		return m.remote("nfs", ":/", below)
	case "cifs", "smb3":
		m.source = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(m.source, "//"), `\`, "/"))
		return m.remote("cifs", "/", below)
	case "fuse.glusterfs":
		if !strings.Contains(m.source, ":/") {
			m.source = strings.Replace(m.source, ":", ":/", 1) // volumes may be written without the slash
		}
		return m.remote("gluster", ":/", below)
	case "ceph":
		return m.ceph(below)
	}
	return ""
}

// remote cuts the source into server and exported path at separator.
func (m mount) remote(kind, separator, below string) string {
	server, export, ok := strings.Cut(m.source, separator)
	server = strings.ToLower(server)
	if !ok || server == "" || isLoopback(server) {
		return ""
	}
	return kind + ":" + server + ":" + path.Join("/", export, m.root, below)
}

// ceph sources are "monitor,monitor:/path" or, newer, "user@fsid.name=/path".
// The user says nothing about the storage, nor does the order of monitors.
func (m mount) ceph(below string) string {
	if cluster, sub, ok := strings.Cut(m.source, "="); ok {
		_, cluster, _ = strings.Cut(cluster, "@")
		if strings.HasPrefix(cluster, ".") || cluster == "" {
			return "" // no fsid given: the cluster is whatever this host's config says
		}
		return "ceph:" + cluster + ":" + path.Join("/", sub, m.root, below)
	}
	i := strings.LastIndex(m.source, ":/")
	if i < 0 {
		return ""
	}
	monitors := strings.Split(strings.ToLower(m.source[:i]), ",")
	if slices.ContainsFunc(monitors, isLoopback) {
		return ""
	}
	slices.Sort(monitors)
	return "ceph:" + strings.Join(monitors, ",") + ":" + path.Join("/", m.source[i+1:], m.root, below)
}

// isLoopback says whether a server's name means "this host", which is another
// one on each host.
func isLoopback(server string) bool {
	host := strings.Trim(server, "[]")
	if a, err := netip.ParseAddrPort(server); err == nil {
		host = a.Addr().String()
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast()
	}
	return host == "localhost" || strings.HasPrefix(host, "localhost.") || strings.HasSuffix(host, ".localhost")
}
