#!/bin/sh
# The published 7B shape (two decoder layers of it, everything else whole) under --max-ram 4G: 32 conversations of 64 to 768 tokens, then
# 64, of which the first 32 are the same.
#
#     sh tests/long/memory.sh BUILD_DIR
#
# Exit 1 unless: the peak (maximum resident set, /usr/bin/time) is within the budget and the plan, and not below 85 % of the plan; twice
# the samples change it by less than 3 %; --max-ram 1G is refused with exit 4 in under a second and names a budget that works.
set -u
[ $# = 1 ] || { echo "usage: sh tests/long/memory.sh BUILD_DIR"; exit 77; }
[ -x "$1/nibble" ] || { echo "skipped: $1/nibble is not there, build the program first"; exit 77; }
[ -x /usr/bin/time ] || { echo "skipped: /usr/bin/time is not there"; exit 77; }
nibble=$(cd "$1" && pwd)/nibble
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit 77
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
[ "$(df -k --output=avail "$work" | tail -n 1)" -gt 14000000 ] || { echo "skipped: too little room in $work"; exit 77; }
failed=0

check() { # TEXT CONDITION
    if [ "$2" = 1 ]; then echo "ok      $1"; else echo "WRONG   $1"; failed=1; fi
}

grep -oE '"Ġ[a-z]{2,}"' "$root/tools/demo/model/vocab.json" |
    awk -v rows=64 -v low=42 -v high=746 -f "$root/tests/long/conversations.awk" >"$work/data.jsonl"
"$nibble" synth 7b --layers 2 --out "$work/model" -q || exit 1
flags="--data $work/data.jsonl --method gptq --bits 4 --group-size 128 --seq-len 768 --effort 0 --no-judge"

start=$(date +%s%N)
"$nibble" quantize "$work/model" $flags --samples 32 --max-ram 1G --out "$work/no" -q 2>"$work/errors"
code=$?
ms=$((($(date +%s%N) - start) / 1000000))
least=$(sed -n 's/.* too little: \([0-9]*\) bytes.*/\1/p' "$work/errors")
cat "$work/errors"
check "--max-ram 1G is refused with exit 4 ($code) in less than a second ($ms ms)" $((code == 4 && ms < 1000))
"$nibble" quantize "$work/model" $flags --samples 32 --max-ram "${least:-0}" --dry-run --out "$work/no" -q >/dev/null 2>&1
check "the budget that it names, ${least:-none}, is enough" $(($? == 0))

for samples in 32 64; do
    "$nibble" quantize "$work/model" $flags --samples $samples --max-ram 4G --dry-run --json --out "$work/no" -q >"$work/plan" || exit 1
    /usr/bin/time -f '%M %e' -o "$work/time" "$nibble" quantize "$work/model" $flags --samples $samples --max-ram 4G --out "$work/out" --json -q \
        >"$work/report" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
    planned=$(sed -n 's/.*"ram_least": \([0-9]*\).*/\1/p' "$work/plan")
    read -r kib seconds <"$work/time"
    tokens=$(sed -n 's/^  "tokens": \([0-9]*\).*/\1/p' "$work/report")
    spooled=$(sed -n 's/^  "spool_bytes": \([0-9]*\).*/\1/p' "$work/report")
    peak=$((kib * 1024))
    echo "$samples samples, $tokens tokens: peak $peak bytes of $planned planned ($((1000 * peak / planned / 10)) %), a generation of hidden states $spooled bytes, $seconds s"
    check "within 4 GiB and the plan, and not below 85 % of it" $((peak <= 4294967296 && peak <= planned && peak * 100 >= planned * 85))
    [ $samples = 32 ] && first=$peak first_tokens=$tokens first_spooled=$spooled
    rm -rf "$work/out"
done
change=$(((peak > first ? peak - first : first - peak) * 1000 / first))
check "twice the samples change the peak by $change per mille, less than 30" $((change < 30))
growth=$((1000 * spooled / tokens * first_tokens / first_spooled))
check "the spool grows with the tokens ($growth per mille of linear)" $((growth > 950 && growth < 1050))
exit $failed
