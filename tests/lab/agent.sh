# Wherry in a host: installed from its package, started as its unit would start it.
# shellcheck shell=bash

package_path() {
	local found
	if [ -n "${WHERRY_DEB:-}" ]; then
		[ -e "$WHERRY_DEB" ] || die "WHERRY_DEB names $WHERRY_DEB, which is not there"
		echo "$WHERRY_DEB"
		return
	fi
	found=$(find "$repo/dist" -maxdepth 1 -name 'wherry_*_amd64.deb' -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1)
	echo "${found#* }"
}

is_installed() { inside "$1" test -x /usr/bin/wherry; }

# install_agent HOST: installs the package unless this very package is installed. Succeeds with 10 where it changed
# something, so that the caller restarts the agent.
install_agent() {
	local package sum
	package=$(package_path)
	[ -n "$package" ] || return 0
	sum=$(sha256sum <"$package")
	[ "$sum" = "$(cat "$state/$1/package.sum" 2>/dev/null)" ] && return 0
	inside "$1" /bin/sh -c 'cat >/tmp/wherry.deb && exec dpkg --force-unsafe-io --force-confold -i /tmp/wherry.deb' \
		<"$package" >"$state/$1/install.log" 2>&1 || die "installing $package on host $1 failed; see $state/$1/install.log"
	echo "$sum" >"$state/$1/package.sum"
	return 10
}

agent_ready() {
	inside "$1" curl -fsS -o /dev/null --max-time 5 --unix-socket /run/wherry/agent.sock http://agent/readyz 2>/dev/null
}

agent_ready_or_dead() { agent_ready "$1" || gone "$1" agent; }

# The caller's additions to the agent's environment, one NAME=VALUE each: faults to inject, coverage folders.
start_agent() {
	local host=$1
	shift
	is_installed "$host" || { say "no package in dist/ (make package): host $host runs libvirt without Wherry"; return 0; }
	running "$host" agent || spawn "$host" agent env "$@" wherry serve --config /etc/wherry/wherry.yaml
}

wait_agent() {
	is_installed "$1" || return 0
	until_true 30 "the agent's readiness on host $1" "$state/$1/agent.log" agent_ready_or_dead "$1" &&
		agent_ready "$1" && return
	tail -n 5 "$state/$1/agent.log" >&2
	die "the agent on host $1 did not start; see $state/$1/agent.log"
}

agent_command() {
	local host=$1 command=${2:-}
	shift 2 || true
	case $command in
	start) start_agent "$host" "$@" && wait_agent "$host" ;;
	stop) signal "$host" agent TERM ;;
	kill) signal "$host" agent KILL ;;
	restart) signal "$host" agent TERM && start_agent "$host" "$@" && wait_agent "$host" ;;
	log) cat "$state/$host/agent.log" ;;
	pid) inside "$host" cat /run/lab-agent.pid ;;
	*) die "usage: lab agent HOST start|stop|kill|restart [NAME=VALUE...]|log|pid" ;;
	esac
}
