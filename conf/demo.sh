#!/usr/bin/env bash
# make demo: a three-member cluster with its own etcd on loopback, until Ctrl-C. Everything it writes is below build/demo. As root the
# daemons run as user postgres, because PostgreSQL refuses to be root; where that user cannot reach build/demo, a directory in /tmp
# takes its place. A member that ends is started again, as an init system would. DEMO_DIR (made anew) and DEMO_BIN (with the
# programs) choose other places, DEMO_ETCD_PORT, DEMO_REST_PORT and DEMO_PG_PORT other ports.
set -u
cd "$(dirname "$0")/.." || exit 1
bin=${DEMO_BIN:-$PWD/build/release}
base=${DEMO_DIR:-$PWD/build/demo}
etcd_port=${DEMO_ETCD_PORT:-12379} rest_port=${DEMO_REST_PORT:-18008} pg_port=${DEMO_PG_PORT:-15432}
etcd_pid=
member_pid=()
pgbin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)

fail() {
	echo "demo: $*" >&2
	exit 1
}

as_user=()
[ "$(id -u)" -eq 0 ] && as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
run() { "${as_user[@]}" "$@"; }

prepare() {
	local i p
	[ -n "$pgbin" ] || fail "no PostgreSQL in /usr/lib/postgresql (package postgresql)"
	command -v etcd >/dev/null || fail "no etcd in PATH (package etcd-server)"
	for p in $etcd_port $((etcd_port + 1)) $rest_port $((rest_port + 1)) $((rest_port + 2)) $pg_port $((pg_port + 1)) $((pg_port + 2)); do
		if (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; then
			fail "port $p is taken; set DEMO_ETCD_PORT, DEMO_REST_PORT, DEMO_PG_PORT to other ones"
		fi
	done
	rm -rf "$base" && mkdir -p "$base" || exit 1
	# The runtime directories hold sockets, and their names have 107 bytes at most.
	if [ ${#base} -gt 60 ] || ! run test -r "$base" -a -x "$bin/pgregent"; then
		base=$(mktemp -d /tmp/pgregent-demo.XXXXXX) || exit 1
		mkdir "$base/bin" && cp "$bin"/pgregent* "$base/bin/" && bin=$base/bin
		chmod -R a+rX "$base"
	fi
	mkdir -p "$base/data" "$base/run0" "$base/run1" "$base/run2"
	for i in 0 1 2; do
		sed -e "s/127.0.0.1:$((8008 + i))/127.0.0.1:$((rest_port + i))/; s/127.0.0.1:$((5432 + i))/127.0.0.1:$((pg_port + i))/" \
			-e "s/127.0.0.1:2379/127.0.0.1:$etcd_port/; s|data/pgpass$i|$base/data/pgpass$i|; s|data_dir: data/|data_dir: $base/data/|" \
			-e "s|bin_dir: .*|bin_dir: $pgbin|; s|^    wal_retrieve|    unix_socket_directories: '$base/run$i'\n    wal_retrieve|" \
			"conf/pgregent$i.yml" >"$base/pgregent$i.yml"
		chmod a+r "$base/pgregent$i.yml"
	done
	[ ${#as_user[@]} -eq 0 ] || chown -R postgres "$base"
}

start_etcd() {
	local url=http://127.0.0.1:$etcd_port peer=http://127.0.0.1:$((etcd_port + 1))
	setsid "${as_user[@]}" etcd --data-dir "$base/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
		--listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
		--logger zap >"$base/etcd.log" 2>&1 &
	etcd_pid=$!
}

start_member() {
	setsid "${as_user[@]}" env RUNTIME_DIRECTORY="$base/run$1" "$bin/pgregent" "$base/pgregent$1.yml" >>"$base/pgregent$1.log" 2>&1 &
	member_pid[$1]=$!
}

stop_all() {
	trap - INT TERM EXIT
	printf '\nstopping\n'
	[ ${#member_pid[@]} -eq 0 ] || kill "${member_pid[@]}" 2>/dev/null
	[ ${#member_pid[@]} -eq 0 ] || wait "${member_pid[@]}" 2>/dev/null
	# A member that was killed for good has left its dead-man; that one ends PostgreSQL when the lease is over.
	[ -z "$etcd_pid" ] || kill -CONT "$etcd_pid" 2>/dev/null
	[ -z "$etcd_pid" ] || kill "$etcd_pid" 2>/dev/null
	[ -z "$etcd_pid" ] || wait "$etcd_pid" 2>/dev/null
	[ ! -e "$base" ] || echo "stopped; logs: $base/*.log"
	exit "$1"
}

ctl() { "$bin/pgregentctl" -c "$base/pgregent0.yml" "$@"; }

# Three members: one leader that runs, two replicas that stream.
settled() {
	ctl list -f tsv 2>/dev/null |
		awk -F '\t' '$4 == "Leader" && $5 == "running" { l++ } $4 == "Replica" && $5 == "streaming" { r++ } END { exit !(l == 1 && r == 2) }'
}

# Shows the list each time it says something else, until it is complete.
wait_settled() {
	local i now shown=
	for ((i = 0; i < 480; i++)); do
		now=$(ctl list 2>/dev/null)
		if [ -n "$now" ] && [ "$now" != "$shown" ]; then
			shown=$now
			printf '%s\n' "$now"
		fi
		settled && return 0
		for p in "$etcd_pid" "${member_pid[@]}"; do
			kill -0 "$p" 2>/dev/null || fail "a process ended (pid $p), see $base/*.log"
		done
		sleep 0.25
	done
	fail "the cluster did not come up within two minutes, see $base/*.log"
}

child_of() { pgrep -P "$1" -f "$2" | head -n 1; }

explain() {
	local leader i n hosts c
	leader=$(ctl list -f tsv | awk -F '\t' '$4 == "Leader" { print $2 }')
	n=${leader#pgregent}
	hosts=127.0.0.1:$pg_port,127.0.0.1:$((pg_port + 1)),127.0.0.1:$((pg_port + 2))
	c="$bin/pgregentctl -c $base/pgregent0.yml"
	cat <<T

Connect to the primary, whoever it is:
  psql 'postgresql://postgres:demo-super@$hosts/postgres?target_session_attrs=read-write'

Look, and work with it (in another terminal):
  ctl='$c'
  \$ctl list --watch 1
  \$ctl switchover --force
  \$ctl edit-config --set ttl=30 --force
  \$ctl pause; \$ctl resume
  curl -s http://127.0.0.1:$((rest_port + n))/patroni

Break things ($leader leads; a supervisor that ends is started again here after a second):
  kill -9 $(child_of "${member_pid[$n]}" pgregent-worker)    worker of $leader: replaced, PostgreSQL untouched
  kill -9 $(child_of "${member_pid[$n]}" bin/postgres)    its PostgreSQL: crash recovery, or another member takes over
  kill -9 ${member_pid[$n]}    its supervisor: the next one adopts the running PostgreSQL
  kill -STOP ${member_pid[$n]}    its supervisor frozen: fenced before the lease ends, another member takes over
  kill -STOP $etcd_pid    the store is frozen: the primary gives up before its lease ends; kill -CONT $etcd_pid brings it back

Supervisors: $(for i in 0 1 2; do printf 'pgregent%d=%s ' "$i" "${member_pid[$i]}"; done)etcd: $etcd_pid
Logs: $base/*.log
Ctrl-C stops all.
T
}

# Until etcd ends or Ctrl-C.
supervise() {
	local ended i
	while :; do
		{ wait -n -p ended "$etcd_pid" "${member_pid[@]}"; } 2>/dev/null
		[ "${ended:-}" != "$etcd_pid" ] || fail "etcd ended"
		for i in 0 1 2; do
			[ "${ended:-}" = "${member_pid[$i]}" ] || continue
			sleep 1
			start_member "$i"
			echo "the supervisor of pgregent$i ended (pid $ended) and was started again (pid ${member_pid[$i]})"
		done
	done
}

trap 'stop_all 0' INT TERM
trap 'stop_all $?' EXIT
prepare
start_etcd
for i in 0 1 2; do start_member $i; done
echo "waiting for three members (logs: $base/*.log)"
wait_settled
ctl list
explain
supervise
