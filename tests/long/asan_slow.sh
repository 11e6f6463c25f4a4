#!/bin/sh
# The tests that are left out of the suite's run under ASan and UBSan for their length.
#
#     sh tests/long/asan_slow.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
cmake -S . -B build-asan -DNIBBLE_SANITIZE=address >/dev/null
cmake --build build-asan -j "$(nproc)" >/dev/null
ctest --test-dir build-asan --no-tests=error --output-on-failure -L slow
