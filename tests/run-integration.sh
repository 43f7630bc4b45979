#!/usr/bin/env bash
# Runs the integration tests (pytest) as an ordinary user: PostgreSQL refuses to be root. Optional argument: pytest -k.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$(mktemp)
trap 'rm -f "$out" "$out.sum"' EXIT
user=postgres
work=$(mktemp -d /tmp/pgregent-it.XXXXXX) || exit 1
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
	run "${as_user[@]}" "${args[@]}" "${beside[@]}"
	run "${as_user[@]}" "${args[@]}" -m "alone and not root"
	# Tests that need root (PID namespaces, capabilities) see PGREGENT_TEST_ROOT.
	run env PGREGENT_TEST_ROOT=1 "${args[@]}" -m root
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
