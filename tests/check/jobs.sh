#!/bin/sh
# Stopping, resuming and asking about a quantization from the command line: exit codes, messages, and the bytes at the end.
#
#     sh tests/check/jobs.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
nibble=$(cd "$1" && pwd)/nibble demo=$PWD/tools/demo
place=${TMPDIR:-/dev/shm} # many fsyncs
[ -w "$place" ] || place=/tmp
dir=$(mktemp -d "$place/nibble-jobs-XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir"
fail() { echo "$1"; cat said 2>/dev/null; exit 1; }
hash() { (cd "$1" && sha256sum *) | sed 's/ .*//' | sha256sum; }
begin() { # in the background
    "$nibble" quantize "$demo/model" --data "$demo/calib/chat.jsonl" --samples 48 --method gptq --effort 0 --out out "$@" >/dev/null 2>said &
    job=$!
}
ends() { code=0; wait $job || code=$?; } # its exit code
# Wait until a line of the journal says so, or the job ends.
wait_for() { n=0; until grep -qs "$1" out.job/journal.jsonl || [ $n = 600 ]; do sleep 0.02; n=$((n + 1)); done; }

begin
ends
[ $code = 0 ] || fail "the job alone: exit code $code"
mv out whole
want=$(hash whole)

begin
wait_for '"layer":0,"site":1'
"$nibble" resume out --status > status
grep -q 'being worked on' status && grep -q "by  *pid $job on" status || fail "--status does not say who: $(cat status)"
code=0; "$nibble" resume out 2>second >/dev/null || code=$?
[ $code = 2 ] && grep -q "another run is at this job (pid $job on .*, since 20" second || fail "a second run was not refused: $code"
kill -TERM $job
ends
[ $code = 7 ] || fail "SIGTERM: exit code $code"
grep -q 'stopped before layer .*; the same command goes on from there' said || fail "SIGTERM: another message"
[ ! -e out ] || fail "SIGTERM: there is an output"

"$nibble" resume out.partial >/dev/null 2>said & job=$!
wait_for '"layer":1,"bytes"'
kill -INT $job
ends
[ $code = 130 ] || fail "SIGINT: exit code $code"
"$nibble" resume out --status --json > status
grep -q '"complete": false' status && grep -q '"running": null' status || fail "--status: $(cat status)"
begin --bits 8
ends
[ $code = 2 ] && grep -q -- "--bits is 8, and was 4 when the job in out.job began" said || fail "another option was not refused: $code"
(cd / && "$nibble" resume "$dir/out.job/" >/dev/null 2>"$dir/said") || fail "resume from another folder"
grep -q '^nibble: goes on at layer' said || fail "resume does not say where it goes on"
[ "$(hash out)" = "$want" ] || fail "other bytes than those of an undisturbed run"
[ ! -e out.job ] && [ ! -e out.partial ] || fail "left behind"
rm -r out

begin --job elsewhere --force
n=0; until grep -qs '"layer":0,"site":0' elsewhere/journal.jsonl || [ $n = 600 ]; do sleep 0.02; n=$((n + 1)); done
kill -TERM $job; kill -TERM $job # the second one does not wait
ends
[ $code = 143 ] || [ $code = 7 ] || fail "SIGTERM twice: exit code $code"
"$nibble" resume elsewhere >/dev/null 2>said || fail "resume of --job"
[ "$(hash out)" = "$want" ] || fail "other bytes after --job"
[ ! -e elsewhere ] || fail "left behind"
rm -r out
begin --no-judge # with every default written into the job
wait_for '"layer":0,"site":1'
kill -KILL $job
ends
"$nibble" resume out >/dev/null 2>said || fail "resume of a job without a judge"
cmp out/model.safetensors whole/model.safetensors || fail "other bytes without a judge"
# With asymmetric calibration (the default effort) a job goes on from a step of a layer with both streams of hidden states.
rm -r out
effort_1() {
    "$nibble" quantize "$demo/model" --data "$demo/calib/chat.jsonl" --samples 8 --method gptq --spool out.job --out out >/dev/null 2>said &
    job=$!
}
effort_1
ends
[ $code = 0 ] || fail "effort 1"
want=$(hash out)
rm -r out
effort_1
wait_for '"layer":2,"site":1'
kill -KILL $job
ends
"$nibble" resume out >/dev/null 2>said & job=$!
# While judging: hidden states of both models are in the job's folder, and what goes on judges again, and only that.
n=0; until [ -e out.job/judge-quantized ] || [ $n = 6000 ]; do sleep 0.002; n=$((n + 1)); done
kill -KILL $job
ends
grep -q 'goes on at layer [34] of 6.*; its inputs are on disk' said || fail "resume at effort 1 goes on elsewhere"
[ -e out.job/judge-original ] && [ ! -e out ] || fail "not killed while judging"
[ "$(echo out*)" = "out.job out.partial" ] || fail "beside the job lies something: $(echo out*)"
"$nibble" resume out >/dev/null 2>said || fail "resume of judging"
grep -q 'goes on after the last of 6 layers' said || fail "layers were run again to be judged"
[ "$(hash out)" = "$want" ] || fail "other bytes at effort 1"
[ ! -e out.job ] && [ ! -e out.partial ] || fail "left behind at effort 1"
code=0; "$nibble" resume out >/dev/null 2>said || code=$?
[ $code = 5 ] && grep -q 'there is no job to resume' said || fail "resume of nothing: $code"
"$nibble" plan "$demo/model" --data "$demo/calib/chat.jsonl" --out planned > plan
"$nibble" quantize "$demo/model" --data "$demo/calib/chat.jsonl" --out planned --dry-run | cmp - plan || fail "plan is not --dry-run"
[ ! -e planned ] && [ ! -e planned.job ] || fail "plan wrote something"
echo "stopped, refused, resumed: all as documented"
