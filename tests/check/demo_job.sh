#!/bin/sh
# The main job on a few chats with the program of BUILD_DIR (a sanitizer build, in tests/check of tools/test.sh): quantize by
# all methods, read back, compare, benchmark, answer.  Any sanitizer report fails it.
#
#     sh tests/check/demo_job.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
nibble=$1/nibble
demo=tools/demo
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$nibble" doctor > "$out/doctor.txt"
"$nibble" inspect "$demo/model" --tensors > "$out/inspect.txt"
for kind in "rtn rtn 4 128" "awq awq 4 64" "gptq gptq 4 128" "gptq8 gptq 8 -1"; do
    set -- $kind
    "$nibble" quantize "$demo/model" --out "$out/$1" --method "$2" --bits "$3" --group-size "$4" --data "$demo/calib/chat.jsonl" \
        --samples 6 > "$out/$1.txt"
    echo "quantized: $1"
done
"$nibble" quantize "$demo/model" --out "$out/sharegpt" --method gptq --act-order full --data "$demo/calib/sharegpt.json" --samples 6 >/dev/null
"$nibble" eval "$out/rtn" "$out/awq" "$out/gptq" "$out/gptq8" "$out/sharegpt" --ref "$demo/model" --data "$demo/eval/chat_holdout.jsonl" --limit 6
"$nibble" eval "$out/awq" --tasks "demo_mmmu:$demo/eval/demo_mmmu.tsv,demo_docvqa:$demo/eval/demo_docvqa.tsv" \
    --tasks "demo_mmbench:$demo/eval/demo_mmbench.tsv,demo_mathvista:$demo/eval/demo_mathvista.tsv" --limit 6 --log-samples "$out/log.jsonl"
[ "$(wc -l < "$out/log.jsonl")" = 24 ]
"$nibble" bench "$out/gptq" -p 64 -n 8 -d 0,32 -r 1
head -n 3 tests/golden/prompts.jsonl > "$out/prompts.jsonl"
"$nibble" run "$out/awq" --messages "$out/prompts.jsonl" --image-root tests/golden --temp 0 --json
printf 'What is 1 plus 2?\n/quit\n' | "$nibble" chat "$out/gptq" --temp 0
echo "the main job ran"
