#!/bin/sh
# Run every nibble command that README.md shows, in order, with the program of BUILD_DIR; each must succeed.
#
#     sh tests/check/readme.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
program=$1/nibble
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Commands are the lines of ```sh blocks that begin with build/nibble; a line that ends in a backslash goes on.
awk '/^```sh/ {on = 1; next} /^```/ {on = 0} on' README.md | sed -e ':join' -e '/\\$/{N;s/\\\n *//;b join' -e '}' |
    grep '^build/nibble' | sed -e "s#^build/nibble#$program#" -e "s#build/readme#$work#g" > "$work/commands"
count=0
while IFS= read -r command; do
    echo "\$ $command"
    sh -c "$command" </dev/null >"$work/output" 2>&1 || { tail -n 20 "$work/output"; echo "README's command failed"; exit 1; }
    count=$((count + 1))
done < "$work/commands"
[ "$count" -ge 8 ] || { echo "only $count commands found in README.md"; exit 1; }
echo "$count commands of README.md ran"
