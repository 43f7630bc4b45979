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
check_libs pgregent-api '^lib(microhttpd|gnutls|yaml|jansson|curl|cares).*\.so'
check_libs pgregentctl '^lib(pq|yaml|jansson|curl|cares).*\.so'
echo "deps: $bad violations"
[ -n "${RESULT_FILE:-}" ] && echo "$((bad == 0)) $bad" >>"$RESULT_FILE"
[ "$bad" -eq 0 ]
