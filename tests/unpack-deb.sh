#!/usr/bin/env bash
# usage: tests/unpack-deb.sh SUITE DIR PACKAGE...: Debian packages of another suite, unpacked below DIR, not installed; from the mirror that apt
# uses. UBUNTU=1: a suite of Ubuntu. LIBRARIES=1: with all libraries that they depend on, the C library among them.
set -eu
suite=$1
dir=$(realpath -m "$2")
here=$(dirname "$(realpath "$0")")
shift 2
umask 022
rm -rf "$dir"
mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
key=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -n "${UBUNTU:-}" ]; then
	UBUNTU='' LIBRARIES='' "$here/unpack-deb.sh" trixie "$dir/ubuntu" ubuntu-keyring
	key=$dir/ubuntu/usr/share/keyrings/ubuntu-archive-keyring.gpg
	mirror=http://archive.ubuntu.com/ubuntu
else
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -E '/debian/?$' | head -n 1)
fi
components=main${UBUNTU:+ universe}
echo "deb [signed-by=$key] ${mirror:-http://deb.debian.org/debian} $suite $components" >"$dir/apt/sources.list"
options=(-o Dir::Etc::SourceList="$dir/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$dir/apt/lists"
	-o Dir::Cache="$dir/apt" -o Dir::Cache::Archives="$dir/apt/archives" -o Dir::State::Status=/dev/null -o APT::Get::List-Cleanup=0
	-o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::Languages=none)
apt-get "${options[@]}" -q update
# Libraries only: the languages and the compiler that a server could use as well are large, and nothing here uses them.
if [ -n "${LIBRARIES:-}" ]; then
	all=" $* "
	new=$*
	while [ -n "$new" ]; do
		found=$(apt-cache "${options[@]}" depends -i $new | sed -n 's/^  \(Pre\)*Depends: \(lib[^:]*\)$/\2/p' |
			grep -Ev '^lib(llvm|perl|python|tcl|gcc-[0-9])' | sort -u) || true
		new=
		for p in $found; do
			case $all in *" $p "*) ;; *) all+="$p " new+="$p " ;; esac
		done
	done
	set -- $all
fi
cd "$dir/apt/archives"
apt-get "${options[@]}" -q download "$@"
for p in *.deb; do dpkg-deb -x "$p" "$dir"; done
cd /
rm -rf "$dir/apt" "$dir/ubuntu"
