#!/bin/sh
# Decode speed of the demo model beside PyTorch's; fails below five times bfloat16.
#
#     sh tests/long/speed_torch.sh BUILD_DIR       (needs Python with torch and transformers; see tests/interop/speed_torch.py)
exec sh "$(dirname "$0")/../interop/run.sh" speed_torch.py "$1"
