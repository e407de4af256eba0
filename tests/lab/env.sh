# What every part of the lab agrees on: paths, names, and how it speaks.
# shellcheck shell=bash disable=SC2034  # the values are used by the files that source this one

repo=$(cd "$lab_src/../.." && pwd)
state=$(realpath -m "${WHERRY_LAB_DIR:-$repo/.lab}")
cache=$(realpath -m "${WHERRY_CACHE:-/var/cache/wherry-lab}")

# Labs of different clones run side by side. The id is carried in the environment of every first process of
# a host, so that `down` finds its hosts even where the state folder was lost.
lab_id=$(printf %s "$state" | sha256sum | cut -c1-12)
marker=WHERRY_LAB_ID

hosts=(a b)
suite_default=${WHERRY_LAB_SUITE:-bookworm-backports}

say() { printf 'lab: %s\n' "$*" >&2; }
die() { printf 'lab: %s\n' "$*" >&2; exit 1; }

peer_of()  { if [ "$1" = a ]; then echo b; else echo a; fi; }
number_of() { if [ "$1" = a ]; then echo 1; else echo 2; fi; }

suite_of() {
	if [ "$1" = a ]; then echo "${WHERRY_LAB_SUITE_A:-$suite_default}"; else echo "${WHERRY_LAB_SUITE_B:-$suite_default}"; fi
}

check_host() {
	case ${1:-} in a | b) ;; *) die "'${1:-}' is no host of the lab: use a or b" ;; esac
}

check_suite() {
	case $1 in bookworm | bookworm-backports) ;; *) die "suite '$1' is not known: use bookworm-backports or bookworm" ;; esac
}

need_root() { [ "$(id -u)" = 0 ] || die "needs root, because it makes namespaces and mounts: run it as root or with sudo"; }

# until_true SECONDS WHAT LOG CMD...: polls CMD, and gives up with a sentence that names the log to read.
until_true() {
	local seconds=$1 what=$2 log=$3 end
	shift 3
	end=$((SECONDS + seconds))
	until "$@"; do
		if ((SECONDS >= end)); then
			say "$what did not happen within $seconds s; see $log"
			return 1
		fi
		sleep 0.05
	done
}
