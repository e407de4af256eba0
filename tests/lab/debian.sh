# A real guest: Debian with systemd and the QEMU guest agent, built from packages into one ext4 file system. It boots by
# the kernel and the initramfs beside it, in a minute or so under emulation.
# shellcheck shell=bash

debian_packages=(systemd systemd-sysv udev dbus qemu-guest-agent linux-image-cloud-amd64 initramfs-tools)
debian_size=1200M

# What proves a clean shutdown: systemd runs the ExecStop only when it stops its units in order.
debian_marker='[Unit]
Description=Write down that this boot ended in order
RequiresMountsFor=/var

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c "rm -f /var/ended-in-order; sync; echo DEBIAN-IS-UP >/dev/ttyS0"
ExecStop=/bin/sh -c "echo yes >/var/ended-in-order; sync"

[Install]
WantedBy=multi-user.target'

build_debian() {
	local target=$1 option
	local -a options=()
	while read -r option; do [ -n "$option" ] && options+=("--aptopt=$option"); done < <(apt_options)
	for option in "${root_strip[@]}"; do options+=("--dpkgopt=path-exclude=$option"); done
	sources_list bookworm >"$target.list"
	printf '%s\n' "$debian_marker" >"$target.unit"
	mmdebstrap --mode=root --variant=minbase --dpkgopt=force-unsafe-io \
		--include="$(IFS=,; echo "${debian_packages[*]}")" "${options[@]}" \
		--customize-hook="cp '$target.unit' \"\$1\"/etc/systemd/system/marker.service" \
		--customize-hook='ln -s ../marker.service "$1"/etc/systemd/system/multi-user.target.wants/marker.service' \
		--customize-hook='echo "/dev/vda / ext4 defaults 0 1" >"$1"/etc/fstab; echo debian >"$1"/etc/hostname; : >"$1"/etc/machine-id' \
		--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/etc/resolv.conf' \
		bookworm "$target/tree" "$target.list" >"$cache/debian.log" 2>&1 ||
		{ tail -n 20 "$cache/debian.log" >&2; rm -f "$target.list" "$target.unit"; return 1; }
	rm -f "$target.list" "$target.unit"
	cp "$target"/tree/boot/vmlinuz-* "$target/vmlinuz"
	cp "$target"/tree/boot/initrd.img-* "$target/initrd.img"
	/sbin/mke2fs -q -t ext4 -L debian -d "$target/tree" "$target/disk.raw" "$debian_size"
	rm -rf "$target/tree"
}

# ensure_debian: prints the folder of vmlinuz, initrd.img and disk.raw.
ensure_debian() {
	local path
	path=$cache/debian-$({ echo "${debian_packages[@]}" "$debian_size" "$debian_marker"; declare -f build_debian; } | key_of)
	build_once "$path" "the Debian guest" build_debian
	echo "$path"
}
