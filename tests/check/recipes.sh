#!/bin/sh
# The two published recipes, verbatim, through --quant-config: the checkpoint must say what the recipe says.
#
#     sh tests/check/recipes.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
nibble=$1/nibble
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# recipe NAME JSON EXPECTED...: each EXPECTED must stand in the quantization_config of config.json (white space aside).
recipe() {
    name=$1 json=$2
    shift 2
    "$nibble" quantize tools/demo/model --out "$work/$name" --data tools/demo/calib/chat.jsonl --samples 4 --quant-config "$json" >/dev/null
    tr -d ' \n\t' < "$work/$name/config.json" | sed 's/.*"quantization_config":{/{/' > "$work/block"
    for field in "$@"; do
        grep -qF "$field" "$work/block" || { echo "$name: config.json lacks $field:"; cat "$work/block"; exit 1; }
    done
    "$nibble" run "$work/$name" -p "What is 1 plus 2?" --temp 0
    echo "good   $name"
}
recipe awq '{"zero_point": true, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}' \
    '"quant_method":"awq"' '"bits":4' '"group_size":128' '"zero_point":true' '"version":"gemm"' '"modules_to_not_convert":["visual"'
for bits in 4 8; do
    recipe gptq-int$bits "{\"bits\": $bits, \"group_size\": 128, \"damp_percent\": 0.1, \"desc_act\": false, \"static_groups\": false,
        \"sym\": true, \"true_sequential\": true, \"model_name_or_path\": null, \"model_file_base_name\": null}" \
        '"quant_method":"gptq"' "\"bits\":$bits" '"group_size":128' '"damp_percent":0.1' '"desc_act":false' '"static_groups":false' \
        '"sym":true' '"true_sequential":true' '"checkpoint_format":"gptq"'
    [ -s "$work/gptq-int$bits/quantize_config.json" ] || { echo "quantize_config.json is missing or empty"; exit 1; }
done
echo "the published recipes hold"
