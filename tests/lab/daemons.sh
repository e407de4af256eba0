# The daemons of a host: started detached, known by the process id they wrote, killed by that id alone.
# shellcheck shell=bash

# spawn HOST NAME CMD...: runs CMD in the background of the host. Its id, as the host counts, goes to
# /run/lab-NAME.pid; its output to HOST/NAME.log, appended.
spawn() {
	local host=$1 name=$2
	shift 2
	inside "$host" setsid -f /bin/sh -c 'echo $$ >"/run/lab-$0.pid"; exec "$@"' "$name" "$@" \
		</dev/null >>"$state/$host/$name.log" 2>&1 9>&-
}

# running HOST NAME: the process is there, and is still the program we started.
running() {
	inside "$1" /bin/sh -c 'read -r pid <"/run/lab-$0.pid" && read -r comm <"/proc/$pid/comm" && [ "$comm" = "$1" ]' \
		"$2" "${3:-$2}" 2>/dev/null
}

gone() { ! running "$@"; }

# signal HOST NAME COMM SIGNAL: and waits for the end.
signal() {
	running "$1" "$2" "$3" || return 0
	inside "$1" /bin/sh -c 'kill "-$1" "$(cat "/run/lab-$0.pid")"' "$2" "$4"
	until_true 30 "the end of $2 on host $1 after SIG$4" "$state/$1/$2.log" gone "$1" "$2" "$3"
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
	stop) signal "$1" libvirtd libvirtd TERM ;;
	kill) signal "$1" libvirtd libvirtd KILL ;;
	restart) signal "$1" libvirtd libvirtd TERM && start_libvirtd "$1" && wait_libvirtd "$1" ;;
	log) cat "$state/$1/libvirtd.log" ;;
	*) die "usage: lab libvirtd HOST start|stop|kill|restart|log" ;;
	esac
}
