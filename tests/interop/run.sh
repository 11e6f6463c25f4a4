#!/bin/sh
# Run one of the Python scripts beside this file on the program of BUILD_DIR; the wrappers in tests/long call it.
#
#     sh tests/interop/run.sh SCRIPT.py BUILD_DIR [ARGUMENT...]
#
# Python is $NIBBLE_PYTHON, else python3.  Exit code 77 and a last line that says why: it cannot run here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
script=$1
program=$2/nibble
shift 2
python=${NIBBLE_PYTHON:-python3}
[ -x "$program" ] || { echo "$program is not there: build it first"; exit 1; }
command -v "$python" >/dev/null || { echo "$script needs Python: '$python' is not found (set NIBBLE_PYTHON)"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1
exec "$python" "$here/$script" "$program" "$@"
