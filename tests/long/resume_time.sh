#!/bin/sh
# A job that is killed when it has used a share f of its processor time needs at most the share 1 - f and two steps more when it goes
# on: nothing that was finished is done again but what little states on disk do not spare.  A step is one of the four of a layer; with
# AWQ, which finds the scales of a layer again, it is a layer.  Processor time, so that other work on the machine does not count.  And a
# job that is asked to stop (SIGTERM) has ended within a step, which at the end of a layer is most of it: less than the time of a layer.
#
#     sh tests/long/resume_time.sh BUILD_DIR [SAMPLES]        the demo (6 layers, 256 samples)
#     sh tests/long/resume_time.sh BUILD_DIR SAMPLES 2b        4 layers of a 2B's shape, random weights
set -u
cd "$(dirname "$0")/../.."
nibble=$1/nibble samples=${2:-256} model=tools/demo/model layers=6
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
if [ "${3:-}" = 2b ]; then
    model=$dir/2b layers=4
    "$nibble" synth 2b --layers $layers --vision-layers 1 --out "$model" -q >/dev/null || exit 1
fi
spent() { # sets $now to the seconds of processor time of all children so far; in this shell, as those of a subshell are its own
    times > "$dir/times"
    now=$(tail -n 1 "$dir/times" | awk '{ split($1, u, /[ms]/); split($2, s, /[ms]/); printf "%.2f", 60 * u[1] + u[2] + 60 * s[1] + s[2] }')
}
begin() { # flags; sets $job
    "$nibble" quantize "$model" --data tools/demo/calib/chat.jsonl --samples "$samples" --no-judge --out "$dir/out" "$@" >/dev/null \
        2>"$dir/said" &
    job=$!
}
calculate() { awk "BEGIN { printf \"%.2f\", $* }"; }
failed=0
go_on() { # NAME WHAT: the rest of the job, and whether it is within $limit
    spent; from=$now
    "$nibble" resume "$dir/out" >/dev/null 2>"$dir/said" || { cat "$dir/said"; exit 1; }
    spent; after=$(calculate "$now - $from")
    (cd "$dir/out" && sha256sum *) | cmp -s - "$dir/want" || { echo "$1: other bytes"; exit 1; }
    verdict=within
    [ "$(awk "BEGIN { print ($after <= $limit) }")" = 1 ] || verdict=BEYOND failed=1
    echo "$1: whole $whole s, $2 after $before s, then $after s ($verdict $limit s): $(sed -n 's/^nibble: \(goes on.*\)/\1/p' "$dir/said")"
    rm -rf "$dir/out"
}
# Effort 1, the default, has asymmetric calibration.
for kind in "gptq 4 --method gptq" "gptq,spool 4 --method gptq --spool $dir/out.job" "gptq,effort-0 4 --method gptq --effort 0" \
    "awq 1 --method awq" "awq,spool 1 --method awq --spool $dir/out.job"; do
    set -- $kind
    name=$1 steps=$2 # of a layer
    shift 2
    spent; from=$now wall=$(date +%s.%N)
    begin "$@"
    wait $job || { cat "$dir/said"; exit 1; }
    spent; whole=$(calculate "$now - $from") wall=$(calculate "$(date +%s.%N) - $wall")
    (cd "$dir/out" && sha256sum *) > "$dir/want"
    rm -r "$dir/out"
    for share in 0.3 0.6 0.9; do
        spent; from=$now
        begin "$@"
        sleep "$(calculate "$share * $wall")"
        kill -KILL $job
        wait $job 2>/dev/null # its time counts, as that of a child
        [ -e "$dir/out.job" ] || { echo "$name: finished, or left nothing, at $share"; rm -rf "$dir/out"; continue; }
        spent; before=$(calculate "$now - $from")
        limit=$(calculate "$whole - $before + 2 * $whole / $layers / $steps")
        go_on "$name" killed
    done
    spent; from=$now
    begin "$@"
    sleep "$(calculate "0.5 * $wall")"
    kill -TERM $job
    asked=$(date +%s.%N)
    wait $job
    ended=$(calculate "$(date +%s.%N) - $asked") layer=$(calculate "$wall / $layers")
    [ -e "$dir/out.job" ] || { echo "$name: finished, or left nothing, when it was to stop"; rm -rf "$dir/out"; continue; }
    verdict=within
    [ "$(awk "BEGIN { print ($ended <= $layer) }")" = 1 ] || verdict=BEYOND failed=1
    echo "$name: ended $ended s after SIGTERM ($verdict $layer s, the time of a layer)"
    spent; before=$(calculate "$now - $from")
    limit=$(calculate "$whole - $before + 2 * $whole / $layers / $steps")
    go_on "$name" stopped
done
exit $failed
