# The daemons of a host: started detached, known by the process id they wrote, killed by that id alone.
# shellcheck shell=bash

# spawn HOST NAME CMD...: runs CMD in the background of the host. Its id, as the host counts, is in
# /run/lab-NAME.pid when this returns; its output goes to HOST/NAME.log, appended.
# The shell does not lead its group, so that setsid need not fork and the id is the daemon's own.
spawn() {
	local host=$1 name=$2
	shift 2
	inside "$host" env LAB_DAEMON="$name" /bin/sh -c 'setsid "$@" & echo $! >"/run/lab-$LAB_DAEMON.pid"' sh "$@" \
		</dev/null >>"$state/$host/$name.log" 2>&1 9>&-
}

# running HOST NAME: the process is there. Its environment tells that the id was not given to another one since;
# that of a process which ended is empty.
running() {
	inside "$1" /bin/sh -c 'read -r pid <"/run/lab-$0.pid" && grep -qsz -x "LAB_DAEMON=$0" "/proc/$pid/environ"' \
		"$2" 2>/dev/null
}

gone() { ! running "$@"; }

# signal HOST NAME SIGNAL: and waits for the end.
signal() {
	running "$1" "$2" || return 0
	# It may end by itself just now, or by somebody else's hand.
	inside "$1" /bin/sh -c 'kill "-$1" "$(cat "/run/lab-$0.pid")"' "$2" "$3" || gone "$1" "$2" || return
	# libvirtd ends itself only after 30 s where a thread of it waits for a monitor that it has already let go of.
	until_true 60 "the end of $2 on host $1 after SIG$3" "$state/$1/$2.log" gone "$1" "$2"
}

libvirt_answers() { inside "$1" virsh -c qemu:///system uri >/dev/null 2>&1; }

start_libvirtd() {
	running "$1" virtlogd || spawn "$1" virtlogd virtlogd
	running "$1" libvirtd || spawn "$1" libvirtd libvirtd --listen
}

wait_libvirtd() { until_true 30 "libvirtd on host $1" "$state/$1/libvirtd.log" libvirt_answers "$1"; }

libvirtd_command() {
	case ${2:-} in
	start) start_libvirtd "$1" && wait_libvirtd "$1" ;;
	stop) signal "$1" libvirtd TERM ;;
	kill) signal "$1" libvirtd KILL ;;
	restart) signal "$1" libvirtd TERM && start_libvirtd "$1" && wait_libvirtd "$1" ;;
	log) cat "$state/$1/libvirtd.log" ;;
	*) die "usage: lab libvirtd HOST start|stop|kill|restart|log" ;;
	esac
}

target_answers() { inside "$1" tgtadm --op show --mode target >/dev/null 2>&1; }

tgtd_command() {
	case ${2:-} in
	start)
		running "$1" tgtd || spawn "$1" tgtd tgtd --foreground
		until_true 10 "the iSCSI target daemon on host $1" "$state/$1/tgtd.log" target_answers "$1"
		;;
	stop) signal "$1" tgtd KILL ;; # it refuses to end while a target exists
	*) die "usage: lab tgtd HOST start|stop" ;;
	esac
}
