#!/usr/bin/env bash
# Runs the integration tests (pytest) as an ordinary user: PostgreSQL refuses to be root. Optional argument: pytest -k.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$(mktemp)
trap 'rm -f "$out" "$out.sum" "$out.root" "$out.root.rc"' EXIT
user=postgres
# In memory where there is room: dozens of clusters are made, and no test but those with a file system of their own is about a disk.
base=/tmp
if [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 8000000 ] 2>/dev/null; then
	probe=$(mktemp /dev/shm/pgregent-it.XXXXXX) && printf '#!/bin/sh\n' >"$probe" && chmod +x "$probe" && "$probe" && base=/dev/shm
	rm -f "$probe"
fi
work=$(mktemp -d "$base/pgregent-it.XXXXXX") || exit 1
args=(/usr/bin/python3 -B -m pytest -p no:cacheprovider -q --no-header -rfs tests/integration)
# Most of the time is waiting for leases, so tests run side by side; those marked alone and root come after them.
beside=(-n "$(nproc)" --dist load --durations=15 -m "not root and not alone")
[ -n "${1:-}" ] && args+=(-k "$1")
export PGREGENT_TEST_DIR=$work PYTHONDONTWRITEBYTECODE=1
broken=0
# 1 is counted below; 5 is "nothing selected", which -k may well do; anything else is a run that never came to its tests.
run() {
	"$@" 2>&1 | tee -a "$out"
	case ${PIPESTATUS[0]} in 0 | 1 | 5) ;; *) broken=$((broken + 1)) ;; esac
}
if [ "$(id -u)" -eq 0 ]; then
	chown "$user" "$work"
	as_user=(setpriv --reuid="$user" --regid="$(id -g $user)" --init-groups --reset-env
		env PATH="$PATH" PGREGENT_TEST_DIR="$work" PYTHONDONTWRITEBYTECODE=1
		${PGREGENT_BUILD:+PGREGENT_BUILD="$PGREGENT_BUILD"} ${PGREGENT_PG_BIN:+PGREGENT_PG_BIN="$PGREGENT_PG_BIN"}
		${PGREGENT_PG_VERSIONS:+PGREGENT_PG_VERSIONS="$PGREGENT_PG_VERSIONS"} ${PGREGENT_ETCD_BIN:+PGREGENT_ETCD_BIN="$PGREGENT_ETCD_BIN"})
	# Tests that need root (PID namespaces, capabilities, mounts) see PGREGENT_TEST_ROOT; they wait most of the time, too.
	{
		env PGREGENT_TEST_ROOT=1 "${args[@]}" -m root --durations=5 >"$out.root" 2>&1
		echo $? >"$out.root.rc"
	} &
	run "${as_user[@]}" "${args[@]}" "${beside[@]}"
	wait
	run sh -c 'cat "$1"; exit "$(cat "$1.rc")"' sh "$out.root"
	run "${as_user[@]}" "${args[@]}" -m "alone and not root"
else
	run "${args[@]}" "${beside[@]}"
	run "${args[@]}" -m "alone and not root"
fi
# pytest's own last lines only: the logs of failed tests hold numbers as well.
grep -E '^[0-9]+ (passed|failed|error|xfailed|xpassed|skipped|deselected).* in [0-9.]+s' "$out" >"$out.sum"
passed=$(grep -oE '[0-9]+ (passed|xpassed)' "$out.sum" | awk '{n += $1} END {print n + 0}')
failed=$(grep -oE '[0-9]+ (failed|errors?)' "$out.sum" | awk '{n += $1} END {print n + 0}')
failed=$((failed + broken))
[ "$((passed + failed))" -eq 0 ] && failed=1
if [ "$failed" -eq 0 ]; then rm -rf "$work"; else echo "logs of the failed tests: $work"; fi
# What the machine could not give is said where it is read.
untested=$(grep -oE '[^ ]+ [^ ]+ IS NOT TESTED.*' "$out" | sort -u)
echo "integration: $passed passed, $failed failed${untested:+; $(echo "$untested" | paste -sd ';')}"
[ -n "${RESULT_FILE:-}" ] && echo "$passed $failed" >>"$RESULT_FILE"
[ "$failed" -eq 0 ]
