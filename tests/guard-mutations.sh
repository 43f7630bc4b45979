#!/usr/bin/env bash
# make guard-mutations: can the tests of guard_step fail? Each entry of tests/unit/guard_mutations.txt is a deliberate
# mistake, made in a copy; the table test or the search must catch it. Prints a table; fails when one survives.
# SECONDS_EACH (default 12) bounds each search. Optional argument: only mutations whose name contains it.
set -u
cd "$(dirname "$0")/.." || exit 1
top=$PWD only=${1:-} seconds=${SECONDS_EACH:-12}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
. tests/guard-mutate.sh
build() { # both tests against the copy
	gcc $flags -o "$dir/table" tests/unit/test_guard.c "$dir"/supervisor/guard.c "$dir"/supervisor/guard_events.c -lcmocka &&
		gcc $flags -o "$dir/enforcers" tests/unit/test_guard_enforcers.c "$dir"/supervisor/guard.c "$dir"/supervisor/guard_events.c -lcmocka &&
		gcc $flags -o "$dir/search" tests/unit/test_guard_search.c
}
fresh && build || exit 1
{ "$dir/table" && "$dir/enforcers"; } >/dev/null 2>&1 || { echo "the table test fails without any mutation"; exit 1; }
caught=0 survived=0 broken=0
printf '%-42s %-10s %s\n' mutation table search
for ((i = 0; ; i++)); do
	name=$(mutate $i) || break
	[[ -n $only && $name != *"$only"* ]] && continue
	fresh
	if ! mutate $i "$dir" >/dev/null || ! build 2>/dev/null; then
		printf '%-42s does not apply or does not compile\n' "$name"
		broken=$((broken + 1))
		continue
	fi
	table=passes search=passes
	{ timeout 30 "$dir/table" && timeout 30 "$dir/enforcers"; } >"$dir/table.out" 2>&1 || table=caught
	timeout $((seconds + 60)) "$dir/search" "$seconds" 12 >"$dir/search.out" 2>&1
	rc=$?
	[ $rc -ne 0 ] && search=$(awk '/^broken after/ {print "caught, " $3 " moves"} /does not work/ {print "caught, a start"}' "$dir/search.out" | head -1)
	printf '%-42s %-10s %s\n' "$name" "$table" "${search:-caught}"
	if [[ $table == caught || $search != passes ]]; then caught=$((caught + 1)); else survived=$((survived + 1)); fi
done
echo "guard-mutations: $caught caught, $survived survived, $broken do not apply"
[ -n "${RESULT_FILE:-}" ] && echo "$caught $((survived + broken))" >>"$RESULT_FILE"
[ $((survived + broken)) -eq 0 ] && [ $caught -gt 0 ]
