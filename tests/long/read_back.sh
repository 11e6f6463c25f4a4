#!/bin/sh
# Checkpoints of every form, read back by a reader that shares nothing with nibble, bit for bit.
#
#     sh tests/long/read_back.sh BUILD_DIR       (needs Python with torch and transformers; see tests/interop/read_back.py)
exec sh "$(dirname "$0")/../interop/run.sh" read_back.py "$1"
