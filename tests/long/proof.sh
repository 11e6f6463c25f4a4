#!/bin/sh
# Every figure that a checkpoint's report.json gives, counted again by transformers from independently unpacked weights.
#
#     sh tests/long/proof.sh BUILD_DIR       (needs Python with torch and transformers; see tests/interop/proof.py)
exec sh "$(dirname "$0")/../interop/run.sh" proof.py "$1"
