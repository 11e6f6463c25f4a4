#!/bin/sh
# How fast the parts of a quantization of the 2B shape are, as shares of the fastest matrix product that this machine has for the
# same arithmetic, measured before and after it in the same run (gemm_peak.c).
#
#     sh tests/long/phases.sh BUILD_DIR [LAYERS]
#
# Textbook GPTQ (--effort 0), int4, groups of 128, 16 conversations of 514 tokens, on random weights.  Shares are of CPU time, which other work on the machine
# changes little.  Exit 1 when forward or Gram is below 60 %, factor or solve below 35 %, or waiting for files above 10 % of the time.
set -u
[ $# -ge 1 ] || { echo "usage: sh tests/long/phases.sh BUILD_DIR [LAYERS]"; exit 77; }
[ -x "$1/nibble" ] && [ -x "$1/tests/gemm_peak" ] || { echo "skipped: build nibble and gemm_peak in $1 first"; exit 77; }
nibble=$(cd "$1" && pwd)/nibble peak=$(cd "$1" && pwd)/tests/gemm_peak layers=${2:-28}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit 77
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
[ "$(df -k --output=avail "$work" | tail -n 1)" -gt $((5000000 + 250000 * layers)) ] || { echo "skipped: too little room in $work"; exit 77; }
grep -oE '"Ġ[a-z]{2,}"' "$root/tools/demo/model/vocab.json" |
    awk -v rows=16 -v low=492 -v high=492 -f "$root/tests/long/conversations.awk" >"$work/data.jsonl"
"$nibble" synth 2b --layers "$layers" --vision-layers 1 --out "$work/model" -q >/dev/null || exit 1
"$peak" >"$work/peak" || exit 1
"$nibble" quantize "$work/model" --data "$work/data.jsonl" --method gptq --bits 4 --group-size 128 --effort 0 --no-judge --out "$work/out" --json -q \
    >"$work/report" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
"$peak" >>"$work/peak" || exit 1
cat "$work/peak"
awk -v layers="$layers" '
    function number(text, key) { sub(".*\"" key "\": *\\{\"cpu\": *", "", text); return text + 0 }
    FILENAME ~ /peak$/ {
        f32 = number($0, "f32") > f32 ? number($0, "f32") : f32
        f64 = number($0, "f64") > f64 ? number($0, "f64") : f64
        next
    }
    /"phases": \{/ { inside = 1; next }
    /"seconds":/ && !inside { total = $2 + 0 }
    inside && /": \{/ { name = $1; gsub(/[":]/, "", name); order[n++] = name }
    inside && /"seconds":/ { wall[name] = $2 + 0 }
    inside && /"cpu_seconds":/ { cpu[name] = $2 + 0 }
    inside && /"gflop":/ { gflop[name] = $2 + 0 }
    inside && /^  }/ { inside = 0 }
    END {
        need["forward"] = need["gram"] = 60; need["factor"] = need["solve"] = 35
        printf "best product, GFLOP per CPU second: f32 %.0f, f64 %.0f\n", f32, f64
        printf "| phase | seconds | CPU seconds | GFLOP | GFLOP/CPU s | of the best product |\n| --- | ---: | ---: | ---: | ---: | ---: |\n"
        for (i = 0; i < n; i++) {
            p = order[i]; best = p == "factor" ? f64 : f32
            printf "| %s | %.1f | %.1f |", p, wall[p], cpu[p]
            if (gflop[p] && cpu[p]) {
                share = 100 * gflop[p] / cpu[p] / best
                printf " %.0f | %.0f | %.0f %% |\n", gflop[p], gflop[p] / cpu[p], share
                if (share < need[p]) { failed = 1; why = why sprintf("%s is at %.0f %% of %d %%; ", p, share, need[p]) }
            } else print " | | |"
            sum += wall[p]
        }
        waiting = 100 * (wall["read"] + wall["spool"] + wall["write"]) / total
        printf "| all | %.1f | | | | |\n%d layers; reading, waiting for the spool and writing are %.1f %% of the time, opening and checking the model %.1f %%\n", \
            total, layers, waiting, 100 * (total - sum) / total
        if (waiting > 10) { failed = 1; why = why "waiting for files is above 10 %; " }
        if (failed) print "not reached: " why
        exit failed
    }' "$work/peak" "$work/report"
