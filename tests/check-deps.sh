#!/usr/bin/env bash
# make deps: every include line against the table of the layers, every binary's libraries against its allowance.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
allowed() { # file -> space separated prefixes that it may include
	case $1 in
	common/core/*) echo "common/core/" ;;
	common/ext/*) echo "common/core/ common/ext/" ;;
	common/model/*) echo "common/core/ common/model/" ;;
	common/config/*) echo "common/core/ common/ext/ common/model/ common/config/" ;;
	common/dcs/*) echo "common/core/ common/ext/ common/model/ common/dcs/" ;;
	supervisor/*) echo "common/core/ supervisor/" ;;
	worker/ha/*) echo "common/model/ common/core/str.h common/core/list.h common/core/limits.h common/core/invariant.h worker/ha/" ;;
	worker/postgres/*) echo "common/ worker/postgres/ worker/files/files_msgs.h" ;;
	worker/files/*) echo "common/core/ common/model/ worker/files/" ;;
	worker/raft/*) echo "common/core/ common/ext/ worker/raft/" ;;
	worker/*) echo "common/ worker/" ;;
	api/*) echo "common/ api/" ;;
	ctl/*) echo "common/ ctl/" ;;
	tests/*) echo "common/ supervisor/ worker/ api/ ctl/ tests/" ;;
	esac
}
while IFS= read -r file; do
	list=$(allowed "$file")
	while IFS= read -r inc; do
		ok=
		for p in $list; do
			case $inc in "$p"*) ok=1 ;; esac
		done
		if [ -z "$ok" ]; then
			echo "$file may not include $inc"
			bad=$((bad + 1))
		fi
	done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"([^"]+)".*/\1/p' "$file")
done < <(git ls-files '*.c' '*.h')
# common/core is libc only; worker/ha sees of common/core what the table says, also through model headers.
check_libs() { # program allowed-regex
	for b in build/release build/san; do
		[ -x "$b/$1" ] || continue
		while IFS= read -r lib; do
			if ! [[ $lib =~ ^(libc|libm|libasan|libubsan|libgcc_s|ld-linux-x86-64|linux-vdso|libpthread|librt|libdl)\.so ]] &&
				! [[ $lib =~ $2 ]]; then
				echo "$b/$1 links $lib"
				bad=$((bad + 1))
			fi
		done < <(objdump -p "$b/$1" | awk '$1 == "NEEDED" {print $2}')
	done
}
check_libs pgregent '^libcap\.so'
check_libs pgregent-deadman '^libcap\.so'
check_libs pgregent-files '^$'
check_libs pgregent-worker '^lib(pq|yaml|jansson|curl|cares).*\.so'
check_libs pgregent-api '^lib(microhttpd|gnutls|yaml|jansson|cares).*\.so'
check_libs pgregentctl '^lib(pq|yaml|jansson|curl|cares).*\.so'
# What a process must never do (DESIGN 1), by what it asks of the C library.
check_calls() { # regex of calls, then files that may not import them
	local calls=$1
	shift
	[ -e "${1:-}" ] || return
	while read -r file call; do
		echo "$file calls $call"
		bad=$((bad + 1))
	done < <(nm -A --undefined-only "$@" | awk '{sub(/:$/, "", $1); sub(/@.*/, "", $3); print $1, $3}' | grep -xE "[^ ]+ ($calls)")
}
run='v?fork|f?exec(v|l)[a-z]*|posix_spawnp?|system|popen|clone|pthread_create'
resolve='getaddrinfo|gethostby[a-z0-9_]*|res_n?(search|query)'
users='get(pw|gr)[a-z_]*'
for b in build/release build/san; do
	check_calls "$resolve|pthread_create|fopen" $b/pgregent
	check_calls "$run|$resolve|$users" $b/pgregent-deadman
	check_calls "f?exec(v|l)[a-z]*|posix_spawnp?|connect|$resolve" $b/pgregent-files
	check_calls "$run|$resolve|connect" $b/pgregent-api
	# The worker's program also serves --validate-config and --generate-config, which end by themselves.
	mapfile -t objects < <(find $b/worker $b/common -name '*.o' 2>/dev/null |
		grep -vE '/worker/(files|raft)/|/config/(program|checks_net)\.o$|/worker/generate\.o$')
	check_calls "$run|$resolve" "${objects[@]}"
done
echo "deps: $bad violations"
[ -n "${RESULT_FILE:-}" ] && echo "$((bad == 0)) $bad" >>"$RESULT_FILE"
[ "$bad" -eq 0 ]
