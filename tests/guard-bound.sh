#!/usr/bin/env bash
# Does the bound of the guard search hide anything? Each mutation of tests/unit/guard_mutations.txt is searched twice to the
# same depth, with the bound and with nothing left out: the set of different examples (their number and the sum of their
# fingerprints) must be the same, and the shortest one must have as many moves. Prints a table; fails at a difference.
# DEPTH (default 6) from every start. Optional argument: only mutations whose name contains it.
set -u
cd "$(dirname "$0")/.." || exit 1
top=$PWD only=${1:-} depth=${DEPTH:-6}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
. tests/guard-mutate.sh
search() { # $1: nothing left out
	GUARD_SEARCH_FULL=$1 GUARD_SEARCH_COUNT=1 timeout 600 "$dir/search" 600 "$depth" 1 | grep -E 'examples, sum|the bound'
}
different=0 same=0 empty=0
for ((i = 0; ; i++)); do
	name=$(mutate $i) || break
	[[ -n $only && $name != *"$only"* ]] && continue
	fresh
	if ! mutate $i "$dir" >/dev/null || ! gcc $flags -o "$dir/search" tests/unit/test_guard_search.c; then
		printf '%-46s does not apply or does not compile\n' "$name"
		different=$((different + 1))
		continue
	fi
	whole=$(search 1) bounded=$(search 0) verdict=same
	if [[ $whole != "$bounded" || -z $whole || $whole == *"the bound"* ]]; then
		verdict=DIFFERENT different=$((different + 1))
	elif [[ $whole == 0\ examples* ]]; then
		empty=$((empty + 1))
	else
		same=$((same + 1))
	fi
	printf '%-46s %-9s %s\n' "$name" "$verdict" "$(echo $whole)"
done
echo "guard-bound: $same with the same examples, $empty without any to $depth moves, $different different"
[ $different -eq 0 ] && [ $same -ge 8 ]
