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

root_path() { echo "$cache/root-$1-$({ echo "${root_packages[@]}" "${root_strip[@]}"; declare -f build_root; } | key_of)"; }

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
