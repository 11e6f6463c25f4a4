#!/bin/sh
# Every form that nibble writes, through transformers, compressed-tensors, GPTQModel and gguf, as far as they are installed.
#
#     sh tests/long/formats.sh BUILD_DIR       (needs Python with torch and transformers; see tests/interop/formats.py)
exec sh "$(dirname "$0")/../interop/run.sh" formats.py "$1"
