#!/bin/sh
# A job that is killed when it has used a share f of its processor time needs at most the share 1 - f and two steps (layers) more when it
# goes on: nothing that was finished is done again but what little states on disk do not spare.  Processor time, so that other work on
# the machine does not count.
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
    "$nibble" quantize "$model" --data tools/demo/calib/chat.jsonl --samples "$samples" --out "$dir/out" "$@" >/dev/null 2>"$dir/said" &
    job=$!
}
calculate() { awk "BEGIN { printf \"%.2f\", $* }"; }
failed=0
for kind in "gptq --method gptq" "gptq,spool --method gptq --spool $dir/out.job" "awq --method awq"; do
    set -- $kind
    name=$1
    shift
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
        wait $job # its time counts, as that of a child
        [ -e "$dir/out.job" ] || { echo "$name: finished, or left nothing, at $share"; rm -rf "$dir/out"; continue; }
        spent; before=$(calculate "$now - $from")
        spent; from=$now
        "$nibble" resume "$dir/out" >/dev/null 2>"$dir/said" || { cat "$dir/said"; exit 1; }
        spent; after=$(calculate "$now - $from")
        (cd "$dir/out" && sha256sum *) | cmp -s - "$dir/want" || { echo "$name: other bytes"; exit 1; }
        limit=$(calculate "$whole - $before + 2 * $whole / $layers")
        verdict=within
        [ "$(awk "BEGIN { print ($after <= $limit) }")" = 1 ] || verdict=BEYOND failed=1
        echo "$name: whole $whole s, killed after $before s, then $after s ($verdict $limit s): $(sed -n 's/^nibble: \(goes on.*\)/\1/p' "$dir/said")"
        rm -rf "$dir/out"
    done
done
exit $failed
