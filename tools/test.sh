#!/bin/sh
# Everything that must hold, in at most 20 minutes on 2 cores; --long adds what takes hours or other machines' software.
#
#     sh tools/test.sh [--long]
#
# A check that cannot run here says SKIP and why.  The last lines count what passed, failed and was skipped.
set -u
cd "$(dirname "$0")/.."
long=no
for argument in "$@"; do
    case $argument in
    --long) long=yes ;;
    *) echo "usage: sh tools/test.sh [--long]" >&2; exit 2 ;;
    esac
done
passed=0 failed=0 skipped=0 failures=""
log=build-test-logs
mkdir -p "$log"
cores=$(nproc)

# check NAME COMMAND...: run it, keep its output, count it.  Exit code 77 means skipped.
check() {
    name=$1
    shift
    from=$(date +%s)
    "$@" >"$log/$name.log" 2>&1
    code=$?
    took=$(($(date +%s) - from))
    case $code in
    0) passed=$((passed + 1)); echo "ok      $name (${took} s)" ;;
    77) skipped=$((skipped + 1)); echo "SKIP    $name: $(tail -n 1 "$log/$name.log")" ;;
    *) failed=$((failed + 1)); failures="$failures $name"; echo "FAILED  $name (${took} s):"; tail -n 40 "$log/$name.log" ;;
    esac
    grep -h '^SKIP' "$log/$name.log" 2>/dev/null | sort -u | sed 's/^/        /' || true
}

build() { # folder, flags...
    folder=$1
    shift
    cmake -S . -B "$folder" "$@" && cmake --build "$folder" -j "$cores"
}
tests() { # folder, ctest flags...
    folder=$1
    shift
    ctest --test-dir "$folder" --no-tests=error --output-on-failure -j "$cores" "$@" && sed -n 's/^\(SKIP.*\)/\1/p' "$folder"/Testing/Temporary/LastTest.log
}
clang_build() {
    command -v clang >/dev/null || { echo "clang is not installed"; return 77; }
    CC=clang build build-clang -DNIBBLE_TESTS=ON
}
bare_build() { build build-bare -DNIBBLE_TESTS=OFF -DNIBBLE_WEBP=OFF -DNIBBLE_CURL=OFF -DNIBBLE_STB=OFF -DNIBBLE_VIDEO=OFF -DNIBBLE_SERVE=OFF -DNIBBLE_MPI=OFF; }

sh tools/setup.sh || { echo "set-up failed"; exit 1; }
check build build build -DNIBBLE_TESTS=ON
check unit tests build
check clang clang_build
check bare bare_build
check asan-build build build-asan -DNIBBLE_SANITIZE=address
check asan tests build-asan -LE slow
for script in tests/check/*.sh; do
    check "$(basename "$script" .sh)" sh "$script" build
done
check demo sh tools/demo.sh
check asan-demo sh tests/check/demo_job.sh build-asan
if [ $long = yes ]; then
    for script in tests/long/*.sh; do
        check "long-$(basename "$script" .sh)" sh "$script" build
    done
fi
[ -z "$failures" ] || echo "failed:$failures (logs in $log)"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
