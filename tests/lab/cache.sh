# What takes long to build is built once, and shared by all labs of a machine.
# shellcheck shell=bash

key_of() { sha256sum | cut -c1-16; } # key_of <EVERYTHING IT IS MADE FROM: the name of a cache entry

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
		# Left by a build that was killed: nobody else builds while we hold the lock.
		rm -rf --one-file-system "$cache"/building.*
		say "building $what (cached in $cache afterwards)"
		temp=$(mktemp -d "$cache/building.XXXXXX")
		trap 'rm -rf "$temp"' EXIT
		chmod 755 "$temp"
		"$@" "$temp" || die "building $what failed; see the lines above"
		mv -T "$temp" "$path"
	)
}
