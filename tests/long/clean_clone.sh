#!/bin/sh
# What a newcomer does: clone the repository into an empty folder, run the demo, run the tests, and see how long each took.
# Only what is committed is cloned: a file that was forgotten fails here.
#
#     sh tests/long/clean_clone.sh [BUILD_DIR]       (BUILD_DIR is not used: the clone builds its own)
set -eu
cd "$(dirname "$0")/../.."
command -v git >/dev/null || { echo "git is not installed"; exit 77; }
git rev-parse --git-dir >/dev/null 2>&1 || { echo "this copy of the sources is not a git working copy"; exit 77; }
[ -z "$(git status --porcelain)" ] || echo "note: uncommitted changes are not part of the clone"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$(pwd)
commit=$(git rev-parse --short HEAD)
# Tests that use data from beside the working copy go on finding it.
[ -n "${NIBBLE_TEST_DATA:-}" ] || [ ! -d "$source/../shared/data" ] || { NIBBLE_TEST_DATA=$(cd "$source/../shared/data" && pwd); export NIBBLE_TEST_DATA; }
git clone -q --no-hardlinks "$source" "$work/nibble"
cd "$work/nibble"

# step NAME COMMAND...: run it with its output in a log; the log's end is shown when it fails.
step() {
    name=$1
    shift
    from=$(date +%s)
    if "$@" >"$work/$name.log" 2>&1; then
        echo "$name: $(($(date +%s) - from)) s; $(tail -n 1 "$work/$name.log")"
    else
        tail -n 60 "$work/$name.log"
        echo "$name failed after $(($(date +%s) - from)) s in a clean clone of $commit"
        exit 1
    fi
}
echo "clean clone of $commit, $(nproc) processors"
step demo sh tools/demo.sh
step test sh tools/test.sh
left=$(git status --porcelain)
[ -z "$left" ] || { echo "the demo or the tests left files that git does not ignore:"; echo "$left"; exit 1; }
