# What guard-mutations.sh and guard-bound.sh share; sourced at the top of the tree, with $top and $dir set.
flags="-std=gnu17 -O2 -D_GNU_SOURCE -w -I $dir -I $top"
fresh() {
	mkdir -p "$dir/supervisor" && cp supervisor/guard*.[ch] "$dir/supervisor/"
}
# Entry $1 of the list: prints its name; with a directory as $2 applies it there, to exactly one place.
mutate() {
	python3 - "$@" <<'PY'
import sys
entries, lines = [], open("tests/unit/guard_mutations.txt").read().splitlines()
for line in lines:
    if line.startswith("== "):
        entries.append({"name": line[3:], "file": "", "-": [], "+": []})
    elif line[:1] in "-+" and entries and line:
        entries[-1][line[0]].append(line[1:])
    elif line.startswith("in ") and entries:
        entries[-1]["file"] = line[3:]
index = int(sys.argv[1])
if index >= len(entries):
    sys.exit(3)
entry = entries[index]
print(entry["name"])
if len(sys.argv) > 2:
    path = f"{sys.argv[2]}/{entry['file']}"
    text, old, new = open(path).read(), "\n".join(entry["-"]), "\n".join(entry["+"])
    if not old or text.count(old) != 1:
        sys.exit(f"{text.count(old)} places")
    open(path, "w").write(text.replace(old, new))
PY
}
