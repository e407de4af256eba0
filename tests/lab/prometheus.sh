#!/bin/bash
# Unpacks Debian's prometheus into the cache, where no service starts, and prints the folder of its programs
# prometheus and promtool.
set -euo pipefail

lab_src=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")" && pwd)
for part in env cache sources; do
	# shellcheck source=/dev/null
	. "$lab_src/$part.sh"
done

build_prometheus() {
	local target=$1
	[ -n "$(debian_targets || true)" ] || apt-get update -qq >&2 || true
	mkdir "$target/package"
	# apt drops its privileges for a download, where it can.
	chmod 777 "$target/package"
	(cd "$target/package" && apt-get download -q prometheus >&2) || return
	dpkg-deb -x "$target"/package/prometheus_*.deb "$target/tree" || return
	mv "$target"/tree/usr/bin/{prometheus,promtool} "$target/" || return
	rm -rf "$target/package" "$target/tree"
}

path=$cache/prometheus-$(declare -f build_prometheus | key_of)
build_once "$path" "Prometheus" build_prometheus
echo "$path"
