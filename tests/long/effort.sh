#!/bin/sh
# What each --effort costs and gains: GPTQ, AWQ and both on the demo, int4, groups of 128, the first 128 chats, judged on all held-out ones.
#
#     sh tests/long/effort.sh BUILD_DIR [FOLDER]       about a minute on two idle CPUs; build the target effort_plot first
#
# Writes effort.csv and effort.svg into FOLDER (results/ by default): seconds as quantize's report has them, the divergence as
# `nibble eval` tells it.  CPU seconds are those of the phases, over all threads.  Exit 1 when an effort above 0 diverges more than effort 0.
set -u
[ $# -ge 1 ] || { echo "usage: sh tests/long/effort.sh BUILD_DIR [FOLDER]"; exit 77; }
[ -x "$1/nibble" ] && [ -x "$1/tests/effort_plot" ] || { echo "skipped: build nibble and effort_plot in $1 first"; exit 77; }
root=$(cd "$(dirname "$0")/../.." && pwd)
nibble=$(cd "$1" && pwd)/nibble plot=$(cd "$1" && pwd)/tests/effort_plot out=${2:-$root/results} demo=$root/tools/demo
work=$(mktemp -d) || exit 77
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# number KEY [SCOPE]: the first one after "KEY":, within the object "SCOPE" if that is given
number() {
    awk -v key="\"$1\":" -v scope="${2:+\"$2\": {}" '
        scope == "" || index($0, scope) { inside = 1 }
        inside && index($0, key) { sub(".*" key " *", ""); print $0 + 0; exit }'
}

echo "method,effort,cpu_seconds,wall_seconds,kl_all,kl_all_error,kl_answers" >"$work/effort.csv"
for method in gptq awq awq+gptq; do
    for effort in 0 1 2 3; do
        "$nibble" quantize "$demo/model" --data "$demo/calib/chat.jsonl" --method $method --effort $effort --no-judge --force --out "$work/out" -q --json \
            >"$work/made" || exit 1
        "$nibble" eval "$work/out" --ref "$demo/model" --data "$demo/eval/chat_holdout.jsonl" -q --json >"$work/said" || exit 1
        cpu=$(awk '/"cpu_seconds":/ { sum += $2 } END { printf "%.2f", sum }' "$work/made")
        printf '%s,%s,%s,%.2f,%.6f,%.6f,%.6f\n' $method $effort "$cpu" "$(number seconds <"$work/made")" "$(number kl_mean all <"$work/said")" \
            "$(number kl_error all <"$work/said")" "$(number kl_mean answer <"$work/said")" | tee -a "$work/effort.csv"
    done
done
"$plot" <"$work/effort.csv" >"$work/effort.svg" || exit 1
mkdir -p "$out" && cp "$work/effort.csv" "$work/effort.svg" "$out/" || exit 1
awk -F, 'NR > 1 && $2 == 0 { first = $5 } NR > 1 && $2 > 0 && !($5 < first) { print $1 " at effort " $2 " diverges no less than at 0"; failed = 1 } END { exit failed }' \
    "$work/effort.csv"
