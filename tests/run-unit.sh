#!/usr/bin/env bash
# Runs the unit test programs given as arguments, two at a time; prints failures whole and a total.
set -u
export CMOCKA_MESSAGE_OUTPUT=stdout
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=0:detect_leaks=1}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
one() {
	name=$(basename "$1")
	timeout 300 "$1" >"$2/$name.out" 2>&1
	echo $? >"$2/$name.rc"
}
export -f one
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'one "$1" "$2"' _ {} "$dir"
passed=0 failed=0
for t in "$@"; do
	name=$(basename "$t")
	rc=$(cat "$dir/$name.rc" 2>/dev/null || echo 255)
	p=$(grep -c '^\[       OK \]' "$dir/$name.out")
	f=$(grep -c '^\[  FAILED  \] .*[^0-9 ]$' "$dir/$name.out")
	if [ "$rc" -ne 0 ]; then
		[ "$f" -eq 0 ] && f=1
		echo "== $name failed (status $rc)"
		cat "$dir/$name.out"
	fi
	passed=$((passed + p)) failed=$((failed + (rc != 0 ? f : 0)))
done
echo "unit: $passed passed, $failed failed"
[ -n "${RESULT_FILE:-}" ] && echo "$passed $failed" >>"$RESULT_FILE"
[ "$failed" -eq 0 ]
