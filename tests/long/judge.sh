#!/bin/sh
# Divergence and perplexity of quantized checkpoints, as transformers counts them and as nibble eval does.
#
#     sh tests/long/judge.sh BUILD_DIR       (needs Python with torch and transformers; see tests/interop/judge.py)
exec sh "$(dirname "$0")/../interop/run.sh" judge.py "$1"
