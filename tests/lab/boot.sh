#!/bin/bash
# The first process of a host, in namespaces of its own: makes the root, enters it, and becomes tini.
# Environment: ROOT (the common root), HOST_STATE, SHARED, GUEST, NAME.
set -euo pipefail

# The machine's /proc is still mounted, so this is the process id as the machine counts it.
read -r pid _ </proc/self/stat

root=$HOST_STATE/root
mkdir -p "$root"/{upper,work,merged}
# On a machine whose own files are an overlay (a container), the upper layer must be something else.
if [ "$(stat -f -c %T "$root")" = overlayfs ]; then
	mount -t tmpfs -o mode=755 tmpfs "$root"
	mkdir -p "$root"/{upper,work,merged}
fi
# volatile: this root is thrown away whole, nothing in it is worth waiting for the disk.
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$root/upper,workdir=$root/work,volatile" "$root/merged"
cd "$root/merged"
cp -a "$HOST_STATE/files/." .

bind() { # bind SOURCE TARGET [OPTION]
	mkdir -p "$1" ".$2"
	mount --bind "$1" ".$2"
	if [ -n "${3:-}" ]; then mount -o "remount,bind,$3" ".$2"; fi
}

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/pts dev/shm dev/net dev/disk/by-id run/lock
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%%:*}" "dev/${n#*:}"; done
node() { mknod -m "${5:-666}" "dev/$1" "$2" "$3" "$4"; }
node null c 1 3; node zero c 1 5; node full c 1 7; node random c 1 8; node urandom c 1 9; node tty c 5 0
node net/tun c 10 200; node loop-control c 10 237 600
for n in {0..31}; do node "loop$n" b 7 "$n" 600; done

bind "$HOST_STATE/run" /run/wherry
bind "$HOST_STATE/images" /var/lib/libvirt/images
bind "$HOST_STATE/images2" /srv/second
bind "$HOST_STATE/console" /var/log/wherry-guest
bind "$SHARED" /srv/shared
if [ -d "$GUEST" ]; then bind "$GUEST" /srv/guest ro; fi

echo "$NAME" >/proc/sys/kernel/hostname
exec 3>"$HOST_STATE/init.pid"
mkdir -p .machine
pivot_root . .machine
umount -l /.machine
rmdir /.machine

# Written last: who reads a process id from this file finds a host that is ready to be entered.
echo "$pid" >&3
exec 3>&-
exec /usr/bin/tini -- /usr/bin/sleep infinity </dev/null >/dev/null 2>&1
