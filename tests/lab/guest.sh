# The tiny guest: Debian's cloud kernel, and an initramfs of busybox and the writer. Boots in seconds under emulation.
# shellcheck shell=bash

guest_modules=(virtio_pci virtio_blk virtio_scsi sd_mod virtio_rng virtio_console button evdev)

# The packages are only unpacked; apt finds out which kernel the metapackage stands for today.
build_guest_base() {
	local target=$1 version
	sources_list bookworm >"$target.list"
	mmdebstrap --mode=root --variant=extract --include=linux-image-cloud-amd64,busybox-static,kmod \
		bookworm "$target/tree" "$target.list" >"$cache/guest.log" 2>&1 ||
		{ tail -n 20 "$cache/guest.log" >&2; rm -f "$target.list"; return 1; }
	rm -f "$target.list"
	version=$(ls "$target/tree/lib/modules")
	chroot "$target/tree" /sbin/depmod "$version"
	mkdir -p "$target/base"/{bin,modules,proc,sys,dev}
	cp "$target/tree/bin/busybox" "$target/base/bin/busybox"
	cp "$target/tree/boot/vmlinuz-$version" "$target/vmlinuz"
	copy_modules "$target" "$version"
	rm -rf "$target/tree"
}

# modprobe prints the modules in the order in which they must be inserted; the guest does just that.
copy_modules() {
	local module path
	for module in "${guest_modules[@]}"; do
		chroot "$1/tree" /sbin/modprobe --set-version "$2" --show-depends "$module"
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r path; do
		module=$(basename "$path")
		cp "$1/tree$path" "$1/base/modules/$module"
		echo "$module" >>"$1/base/modules/order"
	done
}

build_guest() { # build_guest BASE WRITER TARGET
	cp -a "$1/base" "$3/root"
	cp "$2" "$3/root/writer"
	cp "$lab_src/guest/init" "$3/root/init"
	chmod 755 "$3/root/init" "$3/root/writer"
	(cd "$3/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$3/initrd.img"
	cp "$1/vmlinuz" "$3/vmlinuz"
	rm -rf "$3/root"
}

# ensure_guest: prints the folder of the finished guest. Changes of the writer make another guest.
ensure_guest() {
	local base writer guest
	command -v go >/dev/null || die "go is not in PATH ($PATH): it builds the guest's program"
	base=$cache/guest-base-$({ echo "${guest_modules[@]}"; declare -f build_guest_base copy_modules; } | key_of)
	build_once "$base" "the guest's kernel" build_guest_base
	writer=$(mktemp)
	(cd "$repo" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags=-s -o "$writer" ./tests/lab/guest/writer) ||
		die "the guest's program does not build"
	guest=$cache/guest-$({ cat "$base/vmlinuz" "$lab_src/guest/init" "$writer"; declare -f build_guest; } | key_of)
	build_once "$guest" "the guest" build_guest "$base" "$writer"
	rm -f "$writer"
	echo "$guest"
}
