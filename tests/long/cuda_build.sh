#!/bin/sh
# The GPU plugin for every architecture the toolkit knows, without warnings; nothing is run.
#
#     sh tests/long/cuda_build.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || { echo "no CUDA Toolkit (nvcc) is here"; exit 77; }
PATH=$PATH:/usr/local/cuda/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake -S . -B "$work" -DNIBBLE_CUDA=ON -DNIBBLE_TESTS=OFF
cmake --build "$work" --target nibble_cuda nibble -j "$(nproc)"
nvcc --version | tail -n 1
command -v cuobjdump >/dev/null && cuobjdump --list-elf "$work/libnibble_cuda.so" | sed 's/.*\(sm_[0-9]*\).*/\1/' | sort | uniq -c
if "$work/nibble" doctor --json | grep -q '"gpu_backend_devices": 0'; then
    "$work/nibble" doctor | grep 'GPU backend'
    echo "SKIP running it: no GPU is here"
else
    "$work/nibble" run tools/demo/model --device cuda -p "What is 1 plus 2?" --temp 0
fi
