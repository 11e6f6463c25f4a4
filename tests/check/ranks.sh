#!/bin/sh
# ranks.sh - one calibration on 1, 2 and 3 ranks (mpirun) gives the same bytes: the artifact, AWQ and GPTQ with quantized layers
# propagated, GPTQ at effort 0 too (at effort 1 one process alone has asymmetric calibration, so it is off here); and a rank that fails
# ends the others.  Usage: tests/check/ranks.sh BUILD_FOLDER.  Exit 77: there is no MPI here.
set -eu
[ $# = 1 ] && [ -x "$1/nibble" ] || { echo "usage: sh tests/check/ranks.sh BUILD_FOLDER, with nibble in it"; exit 77; }
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$root/tools/demo/model
data=$root/tools/demo/calib/chat.jsonl
command -v mpirun >/dev/null || { echo "skipped: there is no mpirun"; exit 77; }
grep -q "^MPI_C_LIBRARIES\|^MPI_mpi_LIBRARY" "$build/CMakeCache.txt" || { echo "skipped: $build was made without MPI"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
launch="mpirun --oversubscribe -q"
[ "$(id -u)" = 0 ] && launch="$launch --allow-run-as-root"
same() { # FOLDER FOLDER
    diff -r "$1" "$2" >/dev/null || { echo "FAILED: $1 and $2 differ" >&2; diff -rq "$1" "$2" >&2 || true; exit 1; }
}
for n in 1 2 3; do
    $launch -n $n "$build/nibble" calibrate "$model" --data "$data" --samples 5 --artifact "$work/stats-$n" -t 1 -q >"$work/log"
    for method in awq gptq gptq-0; do
        effort=1
        [ $method = gptq-0 ] && effort=0
        mkdir -p "$work/$n" # recipes hold the name of the result: the same in each folder
        $launch -n $n -wdir "$work/$n" "$build/nibble" quantize "$model" --data "$data" --samples 5 \
            --method ${method%-0} --effort $effort --propagate quantized --no-asym-calib --out $method -t 1 -q >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    done
    [ $n = 1 ] || same "$work/stats-1" "$work/stats-$n"
    [ $n = 1 ] || same "$work/1" "$work/$n"
done
# more ranks than samples, hidden states on disk
$launch -n 3 "$build/nibble" calibrate "$model" --data "$data" --samples 2 --artifact "$work/few-3" --spool "$work/spool" -t 1 -q >"$work/log"
"$build/nibble" calibrate "$model" --data "$data" --samples 2 --artifact "$work/few-1" -q >"$work/log"
same "$work/few-1" "$work/few-3"
# a failure of rank 0 alone (the name is taken) ends all, with its message and exit code
mkdir "$work/taken"
code=0
timeout 60 $launch -n 2 "$build/nibble" calibrate "$model" --data "$data" --samples 2 --artifact "$work/taken" -t 1 -q >"$work/log" 2>&1 || code=$?
[ $code = 2 ] && grep -q "taken exists" "$work/log" || { echo "FAILED: exit code $code of a run that cannot write" >&2; cat "$work/log"; exit 1; }
echo "1, 2 and 3 ranks: the same bytes"
