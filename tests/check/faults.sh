#!/bin/sh
# Some of the calls of tests/fault/run.sh; all of them are in tests/long/faults.sh.
#
#     sh tests/check/faults.sh BUILD_DIR
exec sh "$(dirname "$0")/../fault/run.sh" "$1" 41
