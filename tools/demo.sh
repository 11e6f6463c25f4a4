#!/bin/sh
# The main job, end to end: set up, build, quantize the demo checkpoint with AWQ and GPTQ from image-and-text chats, compare
# the results with the original, time them, and ask one of them about a picture.
#
#     sh tools/demo.sh [OUT]        OUT: folder for the checkpoints and tables (default build/demo)
set -eu
cd "$(dirname "$0")/.."
start=$(date +%s)
out=${1:-build/demo}
demo=tools/demo

sh tools/setup.sh
cmake -S . -B build >/dev/null
cmake --build build --target nibble -j "$(nproc)" -- --no-print-directory | grep -v '^\[' || true
nibble=build/nibble
rm -rf "$out"
mkdir -p "$out"
echo "built in $(($(date +%s) - start)) s"
echo

"$nibble" inspect "$demo/model"
echo
for kind in "awq-int4 awq 4" "gptq-int4 gptq 4" "gptq-int8 gptq 8"; do
    set -- $kind
    "$nibble" quantize "$demo/model" --out "$out/$1" --method "$2" --bits "$3" --data "$demo/calib/chat.jsonl" --samples 128
    echo
    "$nibble" verify "$out/$1" --deep --tp 1,2
    echo
done

models="$demo/model $out/gptq-int8 $out/awq-int4 $out/gptq-int4"
echo "Accuracy, and divergence from the original on conversations that calibration never saw:"
echo
"$nibble" eval $models --ref "$demo/model" --data "$demo/eval/chat_holdout.jsonl" --tasks kl,ppl,agree \
    --tasks "demo_mmmu:$demo/eval/demo_mmmu.tsv,demo_docvqa:$demo/eval/demo_docvqa.tsv" \
    --tasks "demo_mmbench:$demo/eval/demo_mmbench.tsv,demo_mathvista:$demo/eval/demo_mathvista.tsv" | tee "$out/accuracy.md"
echo
echo "Speed and memory:"
echo
"$nibble" bench $models -p 512 -n 128 -pg 512,128 -r 3 | tee "$out/speed.md"
echo
picture=$demo/calib/images/chat-0000-0.png
echo "A question about $picture:"
for model in $models; do
    printf '%s: ' "$model"
    "$nibble" run "$model" --image "$picture" --temp 0 \
        -p "Read the receipt.
Please try to answer the question with short words or phrases if possible."
done
echo
echo "done in $(($(date +%s) - start)) s; checkpoints and tables are in $out"
