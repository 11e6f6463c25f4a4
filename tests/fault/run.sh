#!/bin/sh
# Every Nth call that changes a file goes wrong, in each of six ways, in each of these commands on a tiny model (see sweep.c).
#
#     sh tests/fault/run.sh BUILD_DIR N
set -u
cd "$(dirname "$0")/../.."
build=$(cd "$1" && pwd) every=$2
nibble=$build/nibble chats=$PWD/tools/demo/calib
[ -e "$build/tests/fault_sweep" ] || { echo "$build has no fault_sweep: a sanitizer build, or one without tests"; exit 77; }
# In memory where that is possible: the many fsyncs are the same calls there, and take no time.
place=${TMPDIR:-/dev/shm}
[ -w "$place" ] || place=/tmp
dir=$(mktemp -d "$place/nibble-fault-XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/w"
"$nibble" synth tiny --out "$dir/tiny" -q >/dev/null && "$nibble" synth tiny --seed 2 --out "$dir/other" -q >/dev/null &&
    "$nibble" quantize "$dir/tiny" --method rtn --group-size 32 --out "$dir/old" -q >/dev/null || exit 1
failed=0
sweep() { # NAME RESULT FLAGS... -- COMMAND...
    name=$1 result=$2
    shift 2
    flags=
    while [ "$1" != -- ]; do
        flags="$flags $1"
        shift
    done
    shift
    "$build/tests/fault_sweep" $flags --every "$every" "$name" "$build/tests/libfault_shim.so" "$dir/w" "$result" -- "$nibble" "$@" ||
        failed=1
}
quantize() { # NAME FLAGS... -- MORE...
    name=$1
    shift
    flags=
    while [ "$1" != -- ]; do
        flags="$flags $1"
        shift
    done
    shift
    sweep "$name" out $flags -- quantize "$dir/tiny" --data "$chats/chat.jsonl" --samples 3 --group-size 32 --effort "$effort" --gate off -q -t 1 --out "$dir/w/out" "$@"
}
echo "| command | fault | calls | killed | error | well | absent | old | complete |"
echo "|---|---|---|---|---|---|---|---|---|"
effort=1 # asymmetric calibration: two streams of hidden states
quantize "quantize gptq --effort 1, spool" -- --method gptq --spool "$dir/w/out.job"
quantize "quantize awq --effort 1 --save-states 1" -- --method awq --save-states 1
effort=0
quantize "quantize gptq" -- --method gptq
quantize "quantize gptq, spool" -- --method gptq --spool "$dir/w/out.job"
quantize "quantize gptq --save-states 1 --force" --old "$dir/old" -- --method gptq --save-states 1 --force
quantize "quantize awq" -- --method awq --save-states 1
quantize "quantize awq, spool" -- --method awq --spool "$dir/w/out.job"
quantize "quantize rtn" -- --method rtn
sweep "synth" out -- synth tiny --out "$dir/w/out" -t 1 -q
sweep "synth --force" out --old "$dir/other" -- synth tiny --out "$dir/w/out" -t 1 -q --force
sweep "data convert" out.jsonl -- data convert "$chats/sharegpt.json" -q --out "$dir/w/out.jsonl"
exit $failed
