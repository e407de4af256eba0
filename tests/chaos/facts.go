package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wherry-kvm/wherry/tests/harness"
)

// facts are what is on a host, seen without its agent.
type facts struct {
	domains map[string]*domain
	qemu    []string // guests that a QEMU process runs
	tools   []string // command lines of image tools that run
	files   []string // in the pools
	records []string // names of the instances that the agent has a record of
	notes   []string // files in which the agent keeps what it owes
	secrets []string
	mounts  []string
}

// domain is one that libvirt knows.
type domain struct {
	state   string   // "running", "shut off", "paused"
	reason  string   // in virsh's words
	sources []string // files of its disks, of the running copy and of the definition
	busy    []string // jobs, exports and nodes of a migration
}

func (d *domain) active() bool { return d.state != "shut off" && d.state != "crashed" }

// factsScript prints a line for each fact. A domain that ends meanwhile is seen the next time. What QEMU has left of a
// migration are its block jobs, its exports and the nodes that lead to the other host.
const factsScript = `
list=$(virsh -q list --all --name) || exit 1
for d in $list; do
	echo "domain $d $(virsh -q domstate --reason "$d" | head -n 1)"
	{ virsh -q domblklist "$d" --details; virsh -q domblklist "$d" --details --inactive; } | awk -v d="$d" '$4 ~ /^\// { print "source", d, $4 }' | sort -u
	[ "$(virsh -q domstate "$d")" = "shut off" ] && continue
	virsh -q domjobinfo "$d" 2>&1 | grep -v 'None' | grep 'Job type' | sed "s/^/busy $d /"
	for q in query-block-jobs query-block-exports; do
		virsh -q qemu-monitor-command "$d" "{\"execute\":\"$q\"}" | grep -v '"return":\[\]' | sed "s/^/busy $d $q /"
	done
	virsh -q qemu-monitor-command "$d" '{"execute":"query-named-block-nodes","arguments":{"flat":true}}' |
		grep -o '"node-name":"migration[^"]*"' | sed "s/^/busy $d /"
done 2>/run/facts.log
for c in /proc/[0-9]*/cmdline; do
	l=$(tr '\0' ' ' <"$c" 2>/dev/null) || continue
	case $l in
	sh\ *) ;; # this script, for one, has all these words
	*qemu-system*guest=*) n=${l#*guest=}; echo "qemu ${n%%[, ]*}" ;;
	*qemu-img* | *qemu-nbd* | *wherry\ guard\ *) echo "tool $l" ;;
	esac
done
find "$@" -ignore_readdir_race -mindepth 1 ! -name .wherry-lock ! -name filler -printf 'file %p\n'
find /var/lib/wherry/records -type f -printf 'record %f\n' 2>/dev/null
find /var/lib/wherry/cleanup -type f -printf 'note %p\n' 2>/dev/null
virsh -q secret-list | awk 'NF { print "secret", $1 }'
awk '{ print "mount", $5 }' /proc/self/mountinfo | sort
true`

func (h *host) facts(ctx context.Context) (facts, error) {
	out, err := h.Exec(ctx, "sh", "-c", factsScript, "sh", harness.ImagesPath, harness.SecondPath, smallFolder, harness.SharedPath)
	if err != nil {
		return facts{}, fmt.Errorf("looking at host %s: %w", h.Name, err)
	}
	f := parseFacts(out)
	if len(f.mounts) == 0 {
		return f, fmt.Errorf("looking at host %s: no mounts were seen", h.Name)
	}
	return f, nil
}

// parseFacts reads what factsScript printed.
func parseFacts(text string) facts {
	f := facts{domains: map[string]*domain{}}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		name, more, _ := strings.Cut(rest, " ")
		switch kind {
		case "domain":
			state, reason, _ := strings.Cut(more, " (")
			f.domains[name] = &domain{state: strings.TrimSpace(state), reason: strings.TrimSuffix(reason, ")")}
		case "source":
			if d := f.domains[name]; d != nil {
				d.sources = append(d.sources, more)
			}
		case "busy":
			if d := f.domains[name]; d != nil {
				d.busy = append(d.busy, more)
			}
		case "qemu":
			f.qemu = append(f.qemu, rest)
		case "tool":
			f.tools = append(f.tools, rest)
		case "file":
			f.files = append(f.files, rest)
		case "record":
			f.records = append(f.records, strings.TrimSuffix(rest, ".yaml"))
		case "note":
			f.notes = append(f.notes, rest)
		case "secret":
			f.secrets = append(f.secrets, rest)
		case "mount":
			f.mounts = append(f.mounts, rest)
		}
	}
	slices.Sort(f.qemu)
	return f
}

// vitals are what an agent holds: a leak makes them grow.
type vitals struct {
	goroutines, files int
	handles           int     // objects of libvirt, connections included
	clients           int     // connections that libvirt has, whoever holds them
	since             float64 // when the process began: another one has vitals of its own
}

// clientFields are the words of a line of virt-admin's client-list: id, transport, day, time.
const clientFields = 4

func (h *host) vitals(ctx context.Context) (vitals, error) {
	metrics, err := h.api.Metrics(ctx)
	if err != nil {
		return vitals{}, err
	}
	var v vitals
	for line := range strings.Lines(string(metrics)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "go_goroutines":
			v.goroutines = int(number)
		case "process_open_fds":
			v.files = int(number)
		case "wherry_libvirt_handles":
			v.handles = int(number)
		case "process_start_time_seconds":
			v.since = number
		}
	}
	if v.goroutines == 0 || v.files == 0 || v.handles == 0 || v.since == 0 {
		return v, fmt.Errorf("the agent's metrics say %+v", v)
	}
	clients, err := h.Exec(ctx, "virt-admin", "-q", "-c", "libvirtd:///system", "client-list", "libvirtd")
	v.clients = len(strings.Fields(clients)) / clientFields
	return v, err
}
