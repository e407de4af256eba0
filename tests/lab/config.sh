# The files that make a copy of the common root into host a or b. They are staged in the state folder and
# copied over the root by boot.sh, before anything runs there.
# shellcheck shell=bash

put() { # put FILE: standard input becomes that file of the host
	mkdir -p "$(dirname "$files$1")"
	cat >"$files$1"
}

uuid_of() { # a UUID that a name always gets
	printf %s "$1" | sha256sum | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/'
}

pool() { # pool NAME FOLDER: defined, active at start
	mkdir -p "$files/etc/libvirt/storage/autostart"
	put "/etc/libvirt/storage/$1.xml" <<-XML
		<pool type='dir'>
		  <name>$1</name>
		  <uuid>$(uuid_of "$lab_id $host pool $1")</uuid>
		  <target><path>$2</path></target>
		</pool>
	XML
	ln -sfn "/etc/libvirt/storage/$1.xml" "$files/etc/libvirt/storage/autostart/$1.xml"
}

libvirt_files() {
	put /etc/libvirt/libvirtd.conf <<-CONF
		# The lab's network ends at two namespaces; the plain listener exists there only.
		host_uuid = "$(uuid_of "$lab_id $host")"
		listen_tls = 1
		listen_tcp = 1
		auth_tcp = "none"
		auth_tls = "none"
		auth_unix_rw = "none"
		keepalive_interval = 5
		keepalive_count = 6
	CONF
	put /etc/libvirt/qemu.conf <<-CONF
		user = "root"
		group = "root"
		dynamic_ownership = 0
		security_driver = "none"
		cgroup_controllers = [ ]
		namespaces = [ ]
		migration_address = "0.0.0.0"
		remember_owner = 0
	CONF
	# Tests read a guest's console from its log: it must not be rotated away under them.
	put /etc/libvirt/virtlogd.conf <<-CONF
		max_size = 1073741824
		max_backups = 1
	CONF
	pool default /var/lib/libvirt/images
	pool second /srv/second
	pool shared /srv/shared
}

host_files() {
	local host=$1 files=$state/$1/files
	rm -rf "$files"
	put /etc/hostname <<<"wherry-$host"
	put /etc/hosts <<-HOSTS
		127.0.0.1 localhost
		::1 localhost ip6-localhost
		10.77.0.1 wherry-a
		10.77.0.2 wherry-b
		fd77::1 wherry-a
		fd77::2 wherry-b
	HOSTS
	put /etc/machine-id <<<"$(uuid_of "$lab_id $host machine" | tr -d -)"
	libvirt_files
	pki_files
	agent_files
	chmod 755 "$files" "$files/etc"
}

agent_files() {
	local peer
	peer=$(peer_of "$host")
	# In place before the package, which is told to keep it.
	put /etc/wherry/wherry.yaml <<-YAML
		listen:
		  socket: /run/wherry/agent.sock
		  tcp: "0.0.0.0:8470"
		  metrics: "0.0.0.0:9470"
		tls:
		  ca: /etc/wherry/pki/ca.pem
		  cert: /etc/wherry/pki/host.pem
		  key: /etc/wherry/pki/host-key.pem
		state_dir: /var/lib/wherry
		host:
		  name: wherry-$host
		migration:
		  libvirt_uri: "qemu+tcp://wherry-$host/system"
		peers:
		  - "https://wherry-$peer:8470"
		templates:
		  pool: default
		  allow_addresses: ["127.0.0.0/8", "10.77.0.0/24", "fd77::/64"]
		targets:
		  file_folders: [/srv/shared]
		powerflex:
		  root: /dev/disk/by-id
		  rescan: ["/etc/wherry/powerflex-rescan"]
	YAML
	# Before libvirt starts, which looks for its hooks only then.
	put /etc/libvirt/hooks/qemu.d/wherry <"$repo/configs/hook"
	chmod 755 "$files/etc/libvirt/hooks/qemu.d/wherry"
	# Stands in for the proprietary driver's rescan: tests put the link it should find into this file.
	put /etc/wherry/powerflex-rescan <<-'SH'
		#!/bin/sh
		# Makes the devices of /etc/wherry/powerflex.map ("NAME DEVICE" per line) appear as a rescan would.
		mkdir -p /dev/disk/by-id
		[ -e /etc/wherry/powerflex.map ] || exit 0
		while read -r name device; do ln -sfn "$device" "/dev/disk/by-id/$name"; done </etc/wherry/powerflex.map
	SH
	chmod 755 "$files/etc/wherry/powerflex-rescan"
}
