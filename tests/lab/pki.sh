# The lab's own certificate authority, and a stranger's for tests that must fail.
# shellcheck shell=bash

pki=$state/pki

make_ca() { # make_ca NAME SUBJECT
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "$2" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
		-keyout "$pki/$1-key.pem" -out "$pki/$1.pem" 2>>"$pki/openssl.log"
}

make_cert() { # make_cert CA NAME ROLE COMMON_NAME SUBJECT_ALTERNATIVE_NAMES
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Wherry lab/OU=wherry-$3/CN=$4" \
		-keyout "$pki/$2-key.pem" -out "$pki/$2.csr" 2>>"$pki/openssl.log"
	openssl x509 -req -in "$pki/$2.csr" -CA "$pki/$1.pem" -CAkey "$pki/$1-key.pem" -days 3650 \
		-set_serial "0x$(openssl rand -hex 8)" -out "$pki/$2.pem" 2>>"$pki/openssl.log" -extfile <(
			echo "basicConstraints=critical,CA:FALSE"
			echo "keyUsage=critical,digitalSignature,keyEncipherment"
			echo "extendedKeyUsage=serverAuth,clientAuth"
			echo "subjectAltName=$5"
		)
	rm "$pki/$2.csr"
}

# The organisational unit says what a certificate may do: wherry-peer or wherry-management.
make_pki() {
	local host number
	[ -e "$pki/complete" ] && return
	rm -rf "$pki"
	mkdir -p "$pki"
	make_ca ca '/O=Wherry lab/CN=Wherry lab CA'
	make_ca stranger-ca '/O=Stranger/CN=Stranger CA'
	for host in "${hosts[@]}"; do
		number=$(number_of "$host")
		make_cert ca "$host" peer "wherry-$host" \
			"DNS:wherry-$host,DNS:localhost,IP:10.77.0.$number,IP:fd77::$number,IP:127.0.0.1"
	done
	make_cert ca management management management DNS:management
	make_cert stranger-ca stranger peer wherry-b DNS:wherry-b,IP:10.77.0.2
	touch "$pki/complete"
}

pki_files() { # the host's certificates where Wherry, libvirt and QEMU look for them
	install -D -m 644 "$pki/ca.pem" "$files/etc/wherry/pki/ca.pem"
	install -D -m 644 "$pki/$host.pem" "$files/etc/wherry/pki/host.pem"
	install -D -m 600 "$pki/$host-key.pem" "$files/etc/wherry/pki/host-key.pem"
	install -D -m 644 "$pki/management.pem" "$files/etc/wherry/pki/management.pem"
	install -D -m 600 "$pki/management-key.pem" "$files/etc/wherry/pki/management-key.pem"
	install -D -m 644 "$pki/ca.pem" "$files/etc/pki/CA/cacert.pem"
	install -D -m 644 "$pki/ca.pem" "$files/etc/pki/qemu/ca-cert.pem"
	local kind
	for kind in server client; do
		install -D -m 644 "$pki/$host.pem" "$files/etc/pki/libvirt/${kind}cert.pem"
		install -D -m 600 "$pki/$host-key.pem" "$files/etc/pki/libvirt/private/${kind}key.pem"
		install -D -m 644 "$pki/$host.pem" "$files/etc/pki/qemu/$kind-cert.pem"
		install -D -m 600 "$pki/$host-key.pem" "$files/etc/pki/qemu/$kind-key.pem"
	done
}
