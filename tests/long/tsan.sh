#!/bin/sh
# Unit tests under ThreadSanitizer; any report fails.
#
#     sh tests/long/tsan.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
cmake -S . -B build-tsan -DNIBBLE_SANITIZE=thread >/dev/null
cmake --build build-tsan -j "$(nproc)" >/dev/null
ctest --test-dir build-tsan --no-tests=error --output-on-failure -j 1 -LE slow -E 'badinput|pull'
