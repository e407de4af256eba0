# A host's life: its namespaces, how to enter them, and how they end.
# shellcheck shell=bash

is_ours() { grep -qsz -x "$marker=$lab_id" "/proc/$1/environ"; }

# init_of HOST: the process id, on this machine, of the host's first process. Fails where the host is not up.
# A process id may have been used again since; the marker in its environment tells.
init_of() {
	local pid=''
	read -r pid 2>/dev/null <"$state/$1/init.pid" || return 1
	is_ours "$pid" && echo "$pid"
}

is_up() { init_of "$1" >/dev/null; }

# way_into HOST: sets the array entry to the command that runs another one in the host, with nothing of the caller's
# environment. Whoever kills the command from outside kills it inside as well.
way_into() {
	local pid
	pid=$(init_of "$1") || die "host $1 is not up: run 'lab up' first (state folder $state)"
	entry=(nsenter -t "$pid" -a -r -w -- /usr/bin/env -i HOME=/root USER=root LANG=C.UTF-8 TERM="${TERM:-dumb}"
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
		/usr/bin/setpriv --pdeathsig KILL --)
}

inside() { # inside HOST CMD...
	local -a entry
	way_into "$1"
	"${entry[@]}" "${@:2}"
}

# Descriptor 9 is the lab's lock: closed for everything that outlives this command.
start_host() {
	local host=$1 root=$2 guest=$3 dir=$state/$1
	rm -rf "$dir"/{init.pid,root} "$dir"/*.log
	mkdir -p "$dir"/{run,images,images2,console} "$state/shared"
	ln -sfn run/agent.sock "$dir/agent.sock"
	host_files "$host"
	env -i PATH="$PATH" "$marker=$lab_id" ROOT="$root" HOST_STATE="$dir" SHARED="$state/shared" GUEST="$guest" \
		NAME="wherry-$host" setsid -f unshare --mount --uts --ipc --pid --net --fork --propagation private \
		/bin/bash "$lab_src/boot.sh" </dev/null >"$dir/boot.log" 2>&1 9>&-
}

# our_processes: every process of this lab that carries its marker: the first process of each host and the
# unshare that waits for it. Everything else in a host ends with the host's first process.
our_processes() {
	local file
	for file in $(grep -lsz -x "$marker=$lab_id" /proc/[0-9]*/environ || true); do
		basename "$(dirname "$file")"
	done
}

none_left() { [ -z "$(our_processes)" ]; }

stop_hosts() {
	local pid
	for pid in $(our_processes); do kill -KILL "$pid" 2>/dev/null || true; done
	until_true 20 "the end of the hosts' processes ($(our_processes | tr '\n' ' '))" "$state" none_left
}

# What a test may have left outside the hosts: loop devices on our files, mounts under our folder.
release_files() {
	local device file point
	while read -r device file; do
		case $file in "$state"/*) losetup -d "$device" || say "cannot detach $device from $file" ;; esac
	done < <(losetup --list --noheadings --raw --output NAME,BACK-FILE 2>/dev/null || true)
	while read -r point; do
		umount -l "$point" || say "cannot unmount $point"
	done < <(awk -v dir="$state/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac)
}
