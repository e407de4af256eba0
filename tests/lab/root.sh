# The hosts' root file systems: built once per suite from Debian packages, then only read.
# shellcheck shell=bash

root_packages=(
	libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils qemu-block-extra
	iproute2 tini procps util-linux tgt openssl ca-certificates curl adduser
	xfsprogs # file systems with reflinks, made by the tests
)
# Nobody reads manuals in the lab, and the graphics firmware is never booted.
root_strip=(
	'/usr/share/man/*' '/usr/share/doc/*' '/usr/share/locale/*' '/usr/share/info/*'
	'/usr/share/OVMF/*' '/usr/share/ovmf/*' '/usr/share/AAVMF/*'
)

# key_of FILES...: names a cache entry after everything it was made from.
key_of() { { cat "$@"; printf '%s\n' "$suite_key"; } | sha256sum | cut -c1-16; }

root_path() {
	local suite_key=$1
	echo "$cache/root-$1-$(key_of "$lab_src/root.sh" "$lab_src/sources.sh")"
}

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

build_root() {
	local suite=$1 target=$2 option log=$cache/root-$1.log
	local -a options=()
	while read -r option; do [ -n "$option" ] && options+=("--aptopt=$option"); done < <(apt_options)
	for option in "${root_strip[@]}"; do options+=("--dpkgopt=path-exclude=$option"); done
	if [ "$suite" = bookworm-backports ]; then options+=('--aptopt=APT::Default-Release "bookworm-backports"'); fi
	sources_list "$suite" >"$target.list"
	mmdebstrap --mode=root --variant=minbase --dpkgopt=force-unsafe-io \
		--include="$(IFS=,; echo "${root_packages[*]}")" "${options[@]}" \
		--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/etc/libvirt/qemu/networks/autostart "$1"/etc/resolv.conf' \
		bookworm "$target" "$target.list" >"$log" 2>&1 || { tail -n 20 "$log" >&2; rm -f "$target.list"; return 1; }
	rm -f "$target.list"
}

# ensure_root SUITE: prints the path of the finished root.
ensure_root() {
	local path
	check_suite "$1"
	path=$(root_path "$1")
	build_once "$path" "the $1 root" build_root "$1"
	echo "$path"
}
