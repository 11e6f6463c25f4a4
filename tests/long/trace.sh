#!/bin/sh
# What the demo computes for three golden prompts with pictures (one of them two), tensor by tensor, beside transformers in float32.
#
#     sh tests/long/trace.sh BUILD_DIR       (needs Python with torch, transformers and safetensors; NIBBLE_PYTHON chooses it)
set -eu
cd "$(dirname "$0")/../.."
nibble=$1/nibble
python=${NIBBLE_PYTHON:-python3}
"$python" -c "import torch, transformers, safetensors, PIL" 2>/dev/null ||
    { echo "trace.sh needs a Python with torch, transformers, safetensors and Pillow; NIBBLE_PYTHON chooses one"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prompts=tests/golden/prompts.jsonl
for row in 1 4 11; do
    PYTHONDONTWRITEBYTECODE=1 "$python" tests/interop/trace_reference.py tools/demo/model $prompts $row "$work/theirs.safetensors" tests/golden 2>/dev/null
    for isa in ref ""; do
        NIBBLE_ISA=$isa "$nibble" trace tools/demo/model --messages $prompts --image-root tests/golden --row $row --all-logits \
            --out "$work/mine.safetensors" --force -q >/dev/null
        "$nibble" trace --compare "$work/theirs.safetensors" "$work/mine.safetensors" --tol 1e-4 > "$work/table" ||
            { cat "$work/table"; exit 1; }
        tail -n 1 "$work/table"
    done
done
