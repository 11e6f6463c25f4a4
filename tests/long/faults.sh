#!/bin/sh
# Every call that changes a file goes wrong in turn, and then the demo job is killed 200 times at random moments: the bytes are those of
# an undisturbed run each time.
#
#     sh tests/long/faults.sh BUILD_DIR
set -u
cd "$(dirname "$0")/../.."
sh tests/fault/run.sh "$1" 1 || exit
nibble=$1/nibble
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
kills=0 jobs=0 round=0
hash() { (cd "$1" && sha256sum *) | sed 's/ .*//' | sha256sum; }
for kind in "gptq gptq" "gptq-spool gptq --spool $dir/gptq-spool.job" "awq awq" "awq-states awq --save-states 1"; do
    set -- $kind
    name=$1
    shift
    run() { # seconds until the kill
        timeout -s KILL "$1" "$nibble" quantize tools/demo/model --data tools/demo/calib/chat.jsonl --samples 24 --out "$dir/$name" -q \
            --method "$method" $more >/dev/null 2>"$dir/said"
    }
    method=$1
    shift
    more=$*
    run 600 || { cat "$dir/said"; exit 1; }
    want=$(hash "$dir/$name")
    rm -r "$dir/$name"
    of_kind=0
    while [ $of_kind -lt 50 ]; do
        round=$((round + 1))
        run "$(awk -v seed=$round 'BEGIN { srand(seed); printf "%.3f", 0.02 + rand() * 0.9 }')"
        case $? in
        137) of_kind=$((of_kind + 1)) ;;
        0)
            [ "$(hash "$dir/$name")" = "$want" ] || { echo "$name: other bytes after $of_kind kills"; exit 1; }
            [ ! -e "$dir/$name.job" ] && [ ! -e "$dir/$name.partial" ] || { echo "$name: left behind"; exit 1; }
            jobs=$((jobs + 1))
            rm -r "$dir/$name"
            ;;
        *)
            # Killed between the renaming and the end: the result is complete, and resume clears the rest away.
            grep -q 'exists' "$dir/said" && "$nibble" resume "$dir/$name" -q || { cat "$dir/said"; exit 1; }
            [ "$(hash "$dir/$name")" = "$want" ] || { echo "$name: other bytes after $of_kind kills"; exit 1; }
            jobs=$((jobs + 1))
            rm -rf "$dir/$name" "$dir/$name.partial"
            ;;
        esac
    done
    if [ -e "$dir/$name.job" ]; then # the last job
        "$nibble" resume "$dir/$name" -q >/dev/null || exit 1
        [ "$(hash "$dir/$name")" = "$want" ] || { echo "$name: other bytes at the end"; exit 1; }
        jobs=$((jobs + 1))
    fi
    rm -rf "$dir/$name"*
    kills=$((kills + of_kind))
    echo "$name: $of_kind kills at random moments"
done
echo "$kills kills, $jobs finished jobs, all with the bytes of an undisturbed run"
