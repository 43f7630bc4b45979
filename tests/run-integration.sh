#!/usr/bin/env bash
# Runs the integration tests (pytest) as an ordinary user: PostgreSQL refuses to be root. Optional argument: pytest -k.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$(mktemp)
trap 'rm -f "$out"' EXIT
user=postgres
work=$(mktemp -d /tmp/pgregent-it.XXXXXX) || exit 1
cmd=(/usr/bin/python3 -B -m pytest -p no:cacheprovider -q -x --no-header -rf tests/integration)
cmd=("${cmd[@]/-x/}")
args=()
for a in "${cmd[@]}"; do [ -n "$a" ] && args+=("$a"); done
[ -n "${1:-}" ] && args+=(-k "$1")
export PGREGENT_TEST_DIR=$work PYTHONDONTWRITEBYTECODE=1
if [ "$(id -u)" -eq 0 ]; then
	chown "$user" "$work"
	# Tests that need root (PID namespaces, capabilities) see PGREGENT_TEST_ROOT and are run apart.
	setpriv --reuid="$user" --regid="$(id -g $user)" --init-groups --reset-env \
		env PATH="$PATH" PGREGENT_TEST_DIR="$work" PYTHONDONTWRITEBYTECODE=1 \
		${PGREGENT_BUILD:+PGREGENT_BUILD="$PGREGENT_BUILD"} "${args[@]}" -m "not root" 2>&1 | tee "$out"
	env PGREGENT_TEST_ROOT=1 "${args[@]}" -m root 2>&1 | tee -a "$out"
else
	"${args[@]}" -m "not root" 2>&1 | tee "$out"
fi
passed=$(grep -oE '[0-9]+ passed' "$out" | awk '{n += $1} END {print n + 0}')
failed=$(grep -oE '[0-9]+ (failed|errors?)' "$out" | awk '{n += $1} END {print n + 0}')
[ "$((passed + failed))" -eq 0 ] && failed=1
if [ "$failed" -eq 0 ]; then rm -rf "$work"; else echo "logs of the failed tests: $work"; fi
echo "integration: $passed passed, $failed failed"
[ -n "${RESULT_FILE:-}" ] && echo "$passed $failed" >>"$RESULT_FILE"
[ "$failed" -eq 0 ]
