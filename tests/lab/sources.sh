# Where this machine gets Debian from, as mmdebstrap wants it.
# shellcheck shell=bash

# The roots come from the machine's own mirror: apt itself says which of its lists are Debian's, whatever
# format they were written in, and third-party lists fall out because their release file names another origin.
# The slash that apt adds goes again: after the name of a list of mirrors it would be wrong.
debian_targets() {
	apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)' 'Created-By: Packages' |
		sed -n 's/^Debian|//; T; s#/|#|#; p' | grep -E '\|bookworm(-updates|-security)?\|main$' | sort -u
}

# sources_list SUITE: one-line sources for that suite.
sources_list() {
	local suite=$1 targets uri codename component options=''
	targets=$(debian_targets || true)
	if [ -z "$targets" ]; then
		say "apt has no package lists yet, fetching them"
		apt-get update -qq >&2 || say "apt-get update failed for some lists, going on with those it has"
		targets=$(debian_targets || true)
	fi
	[ -n "$targets" ] || die "no Debian 12 (bookworm) archive in this machine's apt sources"
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] &&
		options='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
	while IFS='|' read -r uri codename component; do
		printf 'deb %s%s %s %s\n' "$options" "$uri" "$codename" "$component"
		if [ "$suite-$codename" = bookworm-backports-bookworm ]; then
			printf 'deb %s%s bookworm-backports main\n' "$options" "$uri"
		fi
	done <<<"$targets"
}

# apt_options: the proxy and validity settings of this machine, one option per line, since mmdebstrap reads
# none of the machine's apt configuration.
apt_options() {
	apt-config dump --format '%F "%v";%n' | grep -E '^Acquire::(https?::(.*::)?Proxy|Check-Valid-Until|Retries)' || true
}
