#!/bin/sh
# `nibble data check` over 1 GB of JSON lines in a temporary folder: MB/s without and with tokens, and the peak memory, which must
# not depend on the size of the file.
#
#     sh tests/long/data_speed.sh BUILD_DIR [MEGABYTES]
set -eu
build=$(cd "$1" && pwd) megabytes=${2:-1000}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# Rows of one to three questions and answers of English words, 1.3 kB on average, no two alike; a small file for comparison.
awk -v megabytes="$megabytes" 'BEGIN {
    srand(7)
    n = split("the of and a to in is you that it he was for on are as with his they at be this have from or one had by word but " \
              "not what all were we when your can said there use an each which she do how their if will up other about out many " \
              "then them these so some her would make like him into time has look two more write go see number no way could " \
              "people my than first water been call who oil its now find long down day did get come made may part", w, " ")
    for (i = 0; written < megabytes * 1e6; i++) {
        row = "{\"messages\": ["
        turns = 2 * (1 + int(rand() * 3))
        for (k = 0; k < turns; k++) {
            row = row (k ? ", " : "") "{\"role\": \"" (k % 2 ? "assistant" : "user") "\", \"content\": \""
            words = k % 2 ? 40 + int(rand() * 120) : 10 + int(rand() * 30)
            for (j = 0; j < words; j++) row = row w[1 + int(rand() * n)] (j % 17 == 16 ? ".\\n" : " ")
            row = row "row " i "\"}"
        }
        row = row "]}"
        written += length(row) + 1
        print row
    }
}' >"$work/large.jsonl"
head -n 20000 "$work/large.jsonl" >"$work/small.jsonl"
cat "$work/large.jsonl" >/dev/null # from memory, not from the disk

check() # NAME FILE FLAGS...
{
    name=$1 file=$2
    shift 2
    /usr/bin/time -f "%e %U %S %M" -o "$work/time" "$build/nibble" data check "$file" --progress none "$@" >"$work/report"
    read -r wall user system peak <"$work/time"
    bytes=$(wc -c <"$file")
    echo "$name $bytes $wall $user $system $peak" | awk '{
        printf "%-34s %7.0f MB  %6.2f s  %6.1f MB/s  (%5.1f MB/s a CPU second)  peak %5.1f MB\n", $1, $2 / 1e6, $3, $2 / 1e6 / $3,
               $2 / 1e6 / ($4 + $5), $6 / 1e3 }'
}
check small,--no-tokens "$work/small.jsonl" --no-tokens
check large,--no-tokens,one-thread "$work/large.jsonl" --no-tokens -t 1
check large,--no-tokens "$work/large.jsonl" --no-tokens
flat=$peak
check small,--no-tokens "$work/small.jsonl" --no-tokens
[ "$flat" -lt $((peak + 65536)) ] || { echo "memory grows with the file: $flat kB against $peak kB"; exit 1; }
head -n 200000 "$work/large.jsonl" >"$work/middle.jsonl"
check 200000-rows,tokens "$work/middle.jsonl" --model "$root/tools/demo/model"
