#!/usr/bin/env bash
# make lint: formatter, banned calls, static analysis. Needs clang-format and cppcheck.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
files=$(git ls-files '*.c' '*.h')
if command -v clang-format >/dev/null; then
	for f in $files; do
		clang-format --dry-run --Werror "$f" >/dev/null 2>&1 || { echo "format: $f"; bad=1; }
	done
else
	echo "lint: clang-format is not installed (apt-get install clang-format)" >&2
	bad=1
fi
banned='\b(strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|alloca|system|popen|gets)[[:space:]]*\('
if grep -nE "$banned" $files; then
	echo "lint: banned call"
	bad=1
fi
if command -v cppcheck >/dev/null; then
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,portability \
		--suppress=missingIncludeSystem '-Djson_object_foreach(o,k,v)=for ((k) = json_object_iter_key(o); (v) = (k);)' --suppress=uninitMemberVar -I. -D_GNU_SOURCE $(git ls-files 'common/**.c' 'supervisor/*.c' 'worker/**.c' 'api/*.c' 'ctl/*.c') || bad=1
else
	echo "lint: cppcheck is not installed (apt-get install cppcheck)" >&2
	bad=1
fi
[ $bad -eq 0 ] && echo "lint: clean"
exit $bad
