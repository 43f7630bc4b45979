#!/usr/bin/env bash
# make install into an empty directory: each program is where it belongs, finds the others from there, and nothing else came
# with it; and whatever is built is hardened.
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0
dest=$(mktemp -d) || exit 1
trap 'rm -rf "$dest"' EXIT
check() { # what, then a command
	local what=$1
	shift
	if "$@" >/dev/null 2>&1; then
		passed=$((passed + 1))
	else
		echo "install: $what"
		failed=$((failed + 1))
	fi
}
has() { # regex, file whose dynamic part and headers are searched
	readelf -W -h -l -d --dyn-syms "$2" 2>/dev/null | grep -qE "$1"
}

check "make install fails" make -s --no-print-directory SAN=1 install DESTDIR="$dest" PREFIX=/usr
expected="lib/pgregent/pgregent-api lib/pgregent/pgregent-deadman lib/pgregent/pgregent-files lib/pgregent/pgregent-worker"
expected="bin/pgregent bin/pgregentctl $expected"
found=$(cd "$dest/usr" 2>/dev/null && find . -type f -perm 755 | sed 's,^\./,,' | sort | paste -sd ' ')
check "found \"$found\", expected \"$expected\"" [ "$found" = "$expected" ]
check "something lies outside of the prefix" [ "$(find "$dest" -type f | wc -l)" -eq 6 ]
check "pgregent does not find pgregent-worker" env -u PGREGENT_LIBEXEC "$dest/usr/bin/pgregent" --version
check "pgregentctl does not run" "$dest/usr/bin/pgregentctl" --help

for dir in build/san build/release; do
	for p in pgregent pgregentctl pgregent-worker pgregent-files pgregent-api pgregent-deadman; do
		[ -x "$dir/$p" ] || continue
		check "$dir/$p is not position independent" has 'FLAGS_1.*PIE' "$dir/$p"
		check "$dir/$p has no RELRO" has 'GNU_RELRO' "$dir/$p"
		check "$dir/$p is bound lazily" has 'FLAGS_1.*NOW' "$dir/$p"
		check "$dir/$p has no stack protector" has '__stack_chk_fail' "$dir/$p"
		[ "$dir" = build/san ] || check "$dir/$p is not fortified" has ' __[a-z]+_chk@' "$dir/$p"
	done
done
echo "install: $passed passed, $failed failed"
[ -n "${RESULT_FILE:-}" ] && echo "$passed $failed" >>"$RESULT_FILE"
[ "$failed" -eq 0 ]
