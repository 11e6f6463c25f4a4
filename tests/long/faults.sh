#!/bin/sh
# Every call that changes a file goes wrong in turn, and then jobs of 6 layers are killed 300 times at random moments, 200 of them at the
# default effort and while there is a judge: the bytes are those of an undisturbed run each time.
#
#     sh tests/long/faults.sh BUILD_DIR [kills]        only the second part
set -u
cd "$(dirname "$0")/../.."
[ "${2:-}" = kills ] || sh tests/fault/run.sh "$1" 1 || exit
nibble=$1/nibble
place=${TMPDIR:-/dev/shm}
[ -w "$place" ] || place=/tmp
dir=$(mktemp -d "$place/nibble-kills-XXXXXX")
trap 'rm -rf "$dir"' EXIT
"$nibble" synth tiny --layers 6 --out "$dir/model" -q >/dev/null || exit 1
kills=0 jobs=0 round=0
hash() { (cd "$1" && sha256sum *) | sed 's/ .*//' | sha256sum; }
for kind in "gptq gptq" "gptq-spool gptq --spool $dir/gptq-spool.job" "awq awq" "awq-states awq --save-states 1" \
    "gptq-0 gptq --effort 0 --no-judge" "awq-0-spool awq --effort 0 --no-judge --spool $dir/awq-0-spool.job"; do
    set -- $kind
    name=$1
    shift
    begin() {
        "$nibble" quantize "$dir/model" --data tools/demo/calib/chat.jsonl --samples 16 --group-size 32 --gate off --out "$dir/$name" -q \
            --method "$method" $more >/dev/null 2>"$dir/said" &
        job=$!
    }
    method=$1
    shift
    more=$*
    wall=$(date +%s.%N)
    begin
    wait $job || { cat "$dir/said"; exit 1; }
    wall=$(awk "BEGIN { print $(date +%s.%N) - $wall }")
    want=$(hash "$dir/$name")
    rm -r "$dir/$name"
    of_kind=0
    while [ $of_kind -lt 50 ]; do
        round=$((round + 1))
        begin
        sleep "$(awk -v seed=$round -v wall="$wall" 'BEGIN { srand(seed); printf "%.3f", 0.005 + rand() * 0.9 * wall }')"
        kill -KILL $job 2>/dev/null
        wait $job
        case $? in
        137) of_kind=$((of_kind + 1)) ;;
        0)
            [ "$(hash "$dir/$name")" = "$want" ] || { echo "$name: other bytes after $of_kind kills"; exit 1; }
            [ ! -e "$dir/$name.job" ] && [ ! -e "$dir/$name.partial" ] || { echo "$name: left behind"; exit 1; }
            jobs=$((jobs + 1))
            rm -r "$dir/$name"
            ;;
        *)
            # The last kill came between the renaming and the end: the result is complete, and resume clears away what there is.
            grep -q 'exists' "$dir/said" || { cat "$dir/said"; exit 1; }
            [ ! -e "$dir/$name.job" ] || "$nibble" resume "$dir/$name" -q || exit 1
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
