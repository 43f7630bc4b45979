#!/usr/bin/env bash
# usage: tests/unpack-postgres.sh DIR [UBUNTU] SUITE PACKAGE...: programs of another suite with the libraries and the C library of that suite,
# below DIR, not installed. They are changed to load those: started by a loader on the command line, a program is the loader in
# /proc/<pid>/exe, and that is where the supervisor proves that a postmaster is its own. DIR.unavailable: there was no network.
set -eu
dir=$(realpath -m "$1")
here=$(dirname "$(realpath "$0")")
shift
ubuntu=
[ "$1" = UBUNTU ] && ubuntu=1 && shift
suite=$1
shift
mkdir -p "$(dirname "$dir")"
rm -f "$dir.unavailable"
if ! { UBUNTU=$ubuntu LIBRARIES=1 "$here/unpack-deb.sh" "$suite" "$dir" "$@" &&
	"$here/unpack-deb.sh" bookworm "$dir/tools" patchelf; } >"$dir.log" 2>&1; then
	tail -n 20 "$dir.log" >&2
	if grep -qE 'Failed to fetch|Could not (resolve|connect)|Temporary failure|Unable to connect' "$dir.log"; then
		echo "no network: $(basename "$dir") is not there and will not be tested" | tee "$dir.unavailable" >&2
		exit 0
	fi
	exit 1
fi
loader=$(find "$dir" -name 'ld-linux*' | head -n 1)
libs=$(find "$dir/usr/lib" "$dir/lib" -maxdepth 2 -name 'lib*.so.*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
find "$dir/usr/bin" "$dir/usr/sbin" "$dir/usr/lib/postgresql" -type f -perm /111 ! -name '*.so' 2>/dev/null | while read -r p; do
	"$dir/tools/usr/bin/patchelf" --print-interpreter "$p" >/dev/null 2>&1 || continue
	# Not RUNPATH: that one does not hold for what the libraries need themselves.
	"$dir/tools/usr/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libs" "$p"
done
# The compiler that JIT would call is left out.
rm -rf "$dir/tools" "$dir"/usr/lib/postgresql/*/lib/bitcode "$dir"/usr/lib/postgresql/*/lib/llvmjit*
