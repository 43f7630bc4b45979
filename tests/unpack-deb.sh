#!/usr/bin/env bash
# usage: tests/unpack-deb.sh SUITE DIR PACKAGE...: Debian packages of another suite, unpacked below DIR, not installed; from the mirror that apt uses.
set -eu
suite=$1
dir=$(realpath -m "$2")
shift 2
umask 022
rm -rf "$dir"
mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -E '/debian/?$' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $suite main" >"$dir/apt/sources.list"
options=(-o Dir::Etc::SourceList="$dir/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$dir/apt/lists"
	-o Dir::Cache="$dir/apt" -o Dir::Cache::Archives="$dir/apt/archives" -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root -o Acquire::Retries=3)
apt-get "${options[@]}" -q update
cd "$dir/apt/archives"
apt-get "${options[@]}" -q download "$@"
for p in *.deb; do dpkg-deb -x "$p" "$dir"; done
cd /
rm -rf "$dir/apt"
