#!/usr/bin/env bash
# make demo: a three-member cluster with its own etcd on loopback, below build/demo, until Ctrl-C. As root the daemons run as user
# postgres; PostgreSQL refuses to be root.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
base=$root/build/demo
bin=$root/build/release
etcd_port=${DEMO_ETCD_PORT:-12379} rest_port=${DEMO_REST_PORT:-18008} pg_port=${DEMO_PG_PORT:-15432}
pids=()

as_user=()
if [ "$(id -u)" -eq 0 ]; then
	as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
	# The daemons must be able to reach their programs and directories.
	base=$(mktemp -d /tmp/pgregent-demo.XXXXXX) || exit 1
	mkdir "$base/bin" && cp "$bin"/pgregent* "$base/bin/" && bin=$base/bin
	chmod -R a+rX "$base"
fi
mkdir -p "$base" || exit 1
for p in $etcd_port $((etcd_port + 1)) $rest_port $((rest_port + 1)) $((rest_port + 2)) $pg_port $((pg_port + 1)) $((pg_port + 2)); do
	if (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; then
		echo "port $p is taken; set DEMO_ETCD_PORT, DEMO_REST_PORT, DEMO_PG_PORT to other ones" >&2
		exit 1
	fi
done
rm -rf "$base"/data "$base"/run? "$base"/etcd "$base"/*.log "$base"/*.yml

stop_all() {
	trap - INT TERM EXIT
	echo
	echo "stopping"
	for ((i = ${#pids[@]} - 1; i >= 1; i--)); do kill "${pids[$i]}" 2>/dev/null; done
	for ((i = ${#pids[@]} - 1; i >= 1; i--)); do wait "${pids[$i]}" 2>/dev/null; done
	kill "${pids[0]}" 2>/dev/null
	wait "${pids[0]}" 2>/dev/null
	echo "stopped; logs: $base/*.log"
	exit "${1:-0}"
}
trap 'stop_all 0' INT TERM
trap 'stop_all 1' EXIT

mkdir -p "$base/data" "$base/run0" "$base/run1" "$base/run2"
[ "$(id -u)" -eq 0 ] && chown -R postgres "$base"
url=http://127.0.0.1:$etcd_port peer=http://127.0.0.1:$((etcd_port + 1))
setsid "${as_user[@]}" etcd --data-dir "$base/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
	--listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
	--logger zap >"$base/etcd.log" 2>&1 &
pids+=($!)
pgbin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
for i in 0 1 2; do
	sed -e "s/127.0.0.1:$((8008 + i))/127.0.0.1:$((rest_port + i))/; s/127.0.0.1:$((5432 + i))/127.0.0.1:$((pg_port + i))/" \
		-e "s/127.0.0.1:2379/127.0.0.1:$etcd_port/; s|data/pgpass$i|$base/data/pgpass$i|; s|data_dir: data/|data_dir: $base/data/|" \
		-e "s|bin_dir: .*|bin_dir: $pgbin|; s|^    wal_retrieve|    unix_socket_directories: '$base/run$i'\n    wal_retrieve|" \
		"conf/pgregent$i.yml" >"$base/pgregent$i.yml"
	chmod a+r "$base/pgregent$i.yml"
	setsid "${as_user[@]}" env RUNTIME_DIRECTORY="$base/run$i" "$bin/pgregent" "$base/pgregent$i.yml" >"$base/pgregent$i.log" 2>&1 &
	pids+=($!)
done

table() {
	python3 - "$rest_port" <<'P'
import json, sys, urllib.request
for port in range(int(sys.argv[1]), int(sys.argv[1]) + 3):
    try:
        members = json.load(urllib.request.urlopen("http://127.0.0.1:%d/cluster" % port, timeout=2))["members"]
        break
    except Exception:
        members = []
for m in members:
    print("  %-10s %-16s %-8s %-12s TL %s" % (m["name"], "%s:%s" % (m.get("host"), m.get("port")), m["role"], m["state"],
                                              m.get("timeline", "")))
good = [m for m in members if (m["role"], m["state"]) in (("leader", "running"), ("replica", "streaming"))]
sys.exit(len(good) != 3)
P
}
echo "waiting for three members (logs: $base/*.log)"
ready=
for _ in $(seq 120); do
	if out=$(table); then
		ready=1
		break
	fi
	sleep 1
done
echo "$out"
if [ -z "$ready" ]; then
	echo "the cluster did not come up within two minutes" >&2
	exit 1
fi
hosts=127.0.0.1:$pg_port,127.0.0.1:$((pg_port + 1)),127.0.0.1:$((pg_port + 2))
cat <<T

connect to the primary, whoever it is:
  psql 'postgresql://postgres:demo-super@$hosts/postgres?target_session_attrs=read-write'
look at the cluster:
  curl -s http://127.0.0.1:$rest_port/cluster
switch over:
  curl -s -X POST -d '{"leader": "pgregent0"}' http://127.0.0.1:$rest_port/switchover
break things (supervisor pids: pgregent0 ${pids[1]}, pgregent1 ${pids[2]}, pgregent2 ${pids[3]}, etcd ${pids[0]}):
  kill -9 ${pids[1]}                         the supervisor of pgregent0; its dead-man enforces the lease
  pkill -9 -P ${pids[1]} pgregent-worke      its worker: replaced, PostgreSQL untouched
  kill -STOP ${pids[0]}; kill -CONT ${pids[0]}     the store freezes and comes back
Ctrl-C stops all.
T
while kill -0 "${pids[0]}" 2>/dev/null; do sleep 1; done
