#!/bin/sh
# The program of BUILD_DIR gives the same bytes for any number of threads, twice in a row, and whatever is computed side by
# side: checkpoints of every method (weights, configs, recipe: all files), and the answers to twelve prompts of either kind.
#
#     sh tests/check/determinism.sh BUILD_DIR
#
# Prints one line a comparison; exit 0 when all agree, 1 when one does not, 77 when something needed is not there.
set -u
[ $# = 1 ] || { echo "usage: sh tests/check/determinism.sh BUILD_DIR"; exit 77; }
[ -x "$1/nibble" ] || { echo "skipped: $1/nibble is not there, build the program first"; exit 77; }
nibble=$(cd "$1" && pwd)/nibble
root=$(cd "$(dirname "$0")/../.." && pwd)
demo=$root/tools/demo
work=$(mktemp -d) || exit 77
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
wrong=0

say() { # TEXT STATUS: one line, and remember a failure
    if [ "$2" = 0 ]; then echo "same       $1"; else echo "DIFFERENT  $1"; wrong=1; fi
}

# quantize RUN THREADS FLAGS...: the checkpoint $work/RUN/out.  Its name is given relative to the folder, for the recipe holds it.
quantize() {
    run=$1 threads=$2
    shift 2
    mkdir "$work/$run"
    (cd "$work/$run" && "$nibble" quantize "$demo/model" --out out -t "$threads" -q "$@" >report 2>errors) && return
    cat "$work/$run/errors"
    echo "quantize failed: -t $threads $*"
    exit 1
}

same_folders() { # A B TEXT: the same names and, file by file, the same bytes
    (cd "$work/$1/out" && ls) >"$work/names.a"
    (cd "$work/$2/out" && ls) >"$work/names.b"
    bad=0
    cmp -s "$work/names.a" "$work/names.b" || bad=1
    while IFS= read -r name; do
        cmp "$work/$1/out/$name" "$work/$2/out/$name" || bad=1
    done <"$work/names.a"
    say "$3: $(wc -l <"$work/names.a") files, $(cat "$work/$1/out"/* | wc -c) bytes" $bad
}

# Effort 1, the default, has asymmetric calibration: the sums of two streams.
for kind in "rtn" "awq --samples 8" "gptq --samples 16" "gptq --samples 8 --bits 8 --act-order full" "gptq --samples 8 --effort 0"; do
    set -- $kind
    tag=$(echo "$kind" | tr -d ' -')
    set -- --method "$@"
    [ "$2" = rtn ] || set -- "$@" --data "$demo/calib/chat.jsonl"
    quantize "$tag.1" 1 "$@"
    quantize "$tag.again" 1 "$@"
    same_folders "$tag.1" "$tag.again" "quantize --method $kind, twice"
    for threads in 2 4; do
        quantize "$tag.$threads" "$threads" "$@"
        same_folders "$tag.1" "$tag.$threads" "quantize --method $kind, 1 and $threads threads"
    done
    if [ "$kind" != rtn ]; then
        quantize "$tag.spool" 2 "$@" --spool "$work/$tag.hidden" --spool-zstd 1
        same_folders "$tag.1" "$tag.spool" "quantize --method $kind, hidden states in memory and on disk"
        rm -rf "$work/$tag.spool"
    fi
    mv "$work/$tag.1/out" "$work/$tag.model"
    rm -rf "$work/$tag.1" "$work/$tag.again" "$work/$tag.2" "$work/$tag.4"
done

# ask MODEL OUT FLAGS...: the answers without their times.
ask() {
    model=$1 out=$2
    shift 2
    "$nibble" run "$model" --messages "$work/prompts.jsonl" --image-root "$root/tests/golden" -n 32 "$@" -q >"$work/raw" 2>"$work/errors" || {
        cat "$work/errors"
        echo "run failed: $*"
        exit 1
    }
    sed 's/, "prompt_ms": .*}$/}/' "$work/raw" >"$out"
    [ "$(wc -l <"$out")" = "$(wc -l <"$work/prompts.jsonl")" ] || { echo "run gave $(wc -l <"$out") answers: $*"; exit 1; }
}

[ -r "$root/tests/golden/prompts.jsonl" ] || { echo "skipped: tests/golden/prompts.jsonl is not there"; exit 77; }
head -n 12 "$root/tests/golden/prompts.jsonl" >"$work/prompts.jsonl"
for model in "$demo/model" "$work/awqsamples8.model" "$work/gptqsamples16.model"; do
    name=$(basename "$model")
    for draw in "--temp 0" "--temp 1 --top-p 0.95 --top-k 50 --seed 7"; do
        ask "$model" "$work/first" $draw -t 1 -np 1
        for how in "-t 1 -np 1" "-t 1 -np 8" "-t 2 -np 1" "-t 2 -np 8" "-t 4 -np 1" "-t 4 -np 8" "-t 2 -np 3 -ub 48"; do
            ask "$model" "$work/other" $draw $how
            bad=0
            cmp "$work/first" "$work/other" || bad=1
            say "run $name $draw, '-t 1 -np 1' and '$how': $(wc -l <"$work/first") answers" $bad
        done
    done
done
[ $wrong = 0 ] && echo "everything agrees"
exit $wrong
