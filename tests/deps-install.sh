#!/usr/bin/env bash
# Installs what building and testing need (Debian packages) when run as root; else says what is missing.
set -u
packages=(build-essential pkg-config libpq-dev libyaml-dev libjansson-dev libcurl4-openssl-dev libcap-dev
	libmicrohttpd-dev libgnutls28-dev libc-ares-dev libcmocka-dev libfuse3-dev postgresql postgresql-contrib
	etcd-server etcd-client python3 python3-pytest python3-pytest-xdist python3-psycopg2
	python3-yaml python3-urllib3 python3-dateutil python3-prettytable python3-click python3-psutil python3-dnspython python3-etcd
	libcap2-bin openssl procps util-linux)
missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "missing Debian packages (install them as root): apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Debian's packages start servers of their own; the tests want none of them.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made_policy=1
fi
log=$(mktemp)
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -n 30 "$log" >&2
	rc=1
fi
[ -n "$made_policy" ] && rm -f $policy
rm -f "$log"
exit ${rc:-0}
