#!/usr/bin/env bash
# make test: every level, one total at the end.
set -u
cd "$(dirname "$0")/.." || exit 1
export RESULT_FILE
RESULT_FILE=$(mktemp)
trap 'rm -f "$RESULT_FILE"' EXIT
jobs=$(nproc)
status=0
step() {
	local name=$1
	shift
	local before
	before=$(wc -l <"$RESULT_FILE")
	echo "=== $name"
	local start=$SECONDS
	if ! "$@"; then
		status=1
		# A step that died before it could count is one failure.
		[ "$(wc -l <"$RESULT_FILE")" -eq "$before" ] && echo "0 1" >>"$RESULT_FILE"
	fi
	echo "=== $name took $((SECONDS - start)) s"
}
step build make --no-print-directory -j"$jobs" SAN=1 all unit-bins integration-bins integration-debs
export GUARD_SEARCH_SECONDS=${GUARD_SEARCH_SECONDS:-150}
step unit make --no-print-directory SAN=1 unit-run
step rules make --no-print-directory deps
step install tests/check-install.sh
if [ -e tests/sim/sim_main.c ]; then
	step "build simulator" make --no-print-directory -j"$jobs" SAN=0 sim-bin
	step simulator make --no-print-directory sim-run
fi
if ls tests/integration/test_*.py >/dev/null 2>&1; then
	step integration tests/run-integration.sh
fi
awk -v s=$status '{p += $1; f += $2} END {if (s && !f) f = 1; printf "%d passed, %d failed\n", p, f; exit f != 0}' "$RESULT_FILE"
