# The wire between the hosts: one veth pair whose ends lie in the hosts' own network namespaces.
# shellcheck shell=bash

wire() { # wire HOST CMD...: the machine's own tools, in the host's network namespace
	local pid
	pid=$(init_of "$1") || die "host $1 is not up: run 'lab up' first"
	shift
	nsenter --net="/proc/$pid/ns/net" -- "$@"
}

connect_hosts() {
	local host
	wire a ip link show eth0 >/dev/null 2>&1 && return
	ip link add eth0 netns "$(init_of a)" address 02:00:0a:4d:00:01 type veth \
		peer name eth0 netns "$(init_of b)" address 02:00:0a:4d:00:02
	for host in "${hosts[@]}"; do address_host "$host" "$(number_of "$host")" "$(number_of "$(peer_of "$host")")"; done
}

# Neighbours are permanent, so that a cut link looks as it does behind a router: packets vanish, and nothing
# on this side answers "no route to host" after three seconds.
address_host() {
	wire "$1" ip -batch - <<-IP
		link set lo up
		link set eth0 up
		address add 10.77.0.$2/24 dev eth0
		address add fd77::$2/64 dev eth0 nodad
		neighbour replace 10.77.0.$3 lladdr 02:00:0a:4d:00:0$3 dev eth0 nud permanent
		neighbour replace fd77::$3 lladdr 02:00:0a:4d:00:0$3 dev eth0 nud permanent
	IP
}

# shape HOST: puts in force what the files link and rate of the host say. A host is cut from both ends: its own
# packets vanish in its queue, those of its peer in the peer's.
shape() {
	local host peer
	for host in "${hosts[@]}"; do
		peer=$(peer_of "$host")
		if [ -e "$state/$host/cut" ] || [ -e "$state/$peer/cut" ]; then
			wire "$host" tc qdisc replace dev eth0 root blackhole
		elif [ -s "$state/$host/rate" ]; then
			wire "$host" tc qdisc replace dev eth0 root tbf rate "$(cat "$state/$host/rate")" burst 1mb latency 50ms
		else
			wire "$host" tc qdisc delete dev eth0 root 2>/dev/null || true
		fi
	done
}

set_link() { # set_link HOST up|down
	case ${2:-} in
	up) rm -f "$state/$1/cut" ;;
	down) touch "$state/$1/cut" ;;
	*) die "usage: lab link HOST up|down" ;;
	esac
	shape
}

set_rate() { # set_rate HOST RATE|off: what the host sends, as tc writes it (200mbit)
	case ${2:-} in
	off) rm -f "$state/$1/rate" ;;
	[0-9]*bit) echo "$2" >"$state/$1/rate" ;;
	*) die "usage: lab rate HOST 200mbit|off" ;;
	esac
	shape
}
