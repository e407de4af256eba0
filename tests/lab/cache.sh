# What takes long to build is built once, and shared by all labs of a machine.
# shellcheck shell=bash

# key_of FILES...: names a cache entry after everything it was made from.
key_of() { cat "$@" | sha256sum | cut -c1-16; }

# build_once PATH WHAT CMD...: runs `CMD TEMP` and moves TEMP to PATH. Two labs that start together build once:
# the second waits for the lock and finds the work done. A build that dies leaves nothing under the final name.
build_once() {
	local path=$1 what=$2 temp
	shift 2
	[ -e "$path" ] && return
	mkdir -p "$cache"
	(
		exec 8>"$cache/lock"
		flock 8
		[ -e "$path" ] && exit
		say "building $what (cached in $cache afterwards)"
		temp=$(mktemp -d "$cache/building.XXXXXX")
		trap 'rm -rf "$temp"' EXIT
		chmod 755 "$temp"
		"$@" "$temp" || die "building $what failed; see the lines above"
		mv -T "$temp" "$path"
	)
}
