#!/bin/sh
# The level neon: kernels and their unit tests, compiled for 64-bit ARM and run in an emulator, and the bits of every operation beside
# those of avx2.  It says that the level computes what it must; how fast it is, an emulator cannot say.
#
#     sh tests/long/neon.sh BUILD_DIR
#
# BUILD_DIR has libkernels.a and the folder include of a build for this machine.
set -eu
[ $# = 1 ] || { echo "usage: sh tests/long/neon.sh BUILD_DIR"; exit 77; }
[ "$(uname -m)" != aarch64 ] || { echo "this machine has NEON itself: the unit tests ran on it"; exit 77; }
compiler=${NIBBLE_ARM_CC:-aarch64-linux-gnu-gcc}
command -v "${compiler%% *}" >/dev/null || { echo "no compiler for 64-bit ARM is here (gcc-aarch64-linux-gnu, libc6-dev-arm64-cross)"; exit 77; }
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || { echo "no emulator of 64-bit ARM is here (qemu-user)"; exit 77; }
[ -f "$1/libkernels.a" ] || { echo "$1/libkernels.a is not there, build the program first"; exit 77; }
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
work=$(mktemp -d) || exit 77
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# As CMakeLists.txt has them; tests/arm before all, for its cmocka.h, through whose macros the compiler sees too much of the tests.
flags="-std=gnu11 -O2 -D_GNU_SOURCE -D_FORTIFY_SOURCE=2 -Wall -Wextra -Wshadow -Wvla -Werror -Wstrict-prototypes -ffp-contract=off
-fvisibility=hidden -fstack-protector-strong -fno-schedule-insns -Wno-maybe-uninitialized -Itests/arm -Itests/unit -I$build/include/kernels -DNIBBLE_SOURCE=\"$PWD\""
tests="attention matmul gram gemm rows gram_sums base threads lane"

for file in kernels/*.c kernels/cpu/*.c tests/arm/kernel_bits.c; do
    case $file in *_avx* | *_amx*) ;; *) echo "$file" ;; esac
done >"$work/files"
for name in $tests; do echo "tests/unit/test_kernels_$name.c"; done >>"$work/files"
# shellcheck disable=SC2086
xargs -P "$(nproc)" -I FILE sh -c "$compiler"' "$@" -c FILE -o '"$work"'/$(basename FILE .c).o' sh $flags <"$work/files"
for name in $tests; do mv "$work/test_kernels_$name.o" "$work/$name.test"; done
mv "$work/kernel_bits.o" "$work/kernel_bits.test"
ar rcs "$work/libkernels.a" "$work"/*.o
for program in $tests kernel_bits; do
    $compiler -static -o "$work/$program" "$work/$program.test" "$work/libkernels.a" -lpthread -ldl -lm 2>"$work/link" ||
        { cat "$work/link"; exit 1; }
done

# The long ones first.  Names of those that failed are left in $work/failed.
NIBBLE_ISA=neon "$emulator" "$work/kernel_bits" >"$work/neon" &
for name in $tests; do echo "$name"; done | xargs -P "$(nproc)" -I NAME sh -c '
    "$1" "$2/NAME" >"$2/NAME.out" 2>&1 || echo NAME >>"$2/failed"' sh "$emulator" "$work"
wait $! || { echo "kernel_bits fails on 64-bit ARM"; exit 1; }
for name in $tests; do
    if grep -qx "$name" "$work/failed" 2>/dev/null; then cat "$work/$name.out"; fi
    echo "test_kernels_$name: $(grep -c '^ok' "$work/$name.out") tests hold on 64-bit ARM"
done
[ ! -e "$work/failed" ] || { echo "failed on 64-bit ARM: $(tr '\n' ' ' <"$work/failed")"; exit 1; }
if ! grep -q avx2 /proc/cpuinfo; then
    echo "SKIP neon's bits beside avx2's: this machine does not have AVX2"
    exit 0
fi
# shellcheck disable=SC2086
cc $flags tests/arm/kernel_bits.c -o "$work/here" "$build/libkernels.a" -lpthread -ldl -lm
NIBBLE_ISA=avx2 "$work/here" >"$work/avx2"
diff "$work/avx2" "$work/neon" >"$work/differ" ||
    { head -n 20 "$work/differ"; echo "neon and avx2 differ in $(grep -c '^>' "$work/differ") of $(wc -l <"$work/neon") results"; exit 1; }
echo "neon and avx2 give the same bits in $(wc -l <"$work/neon") results"
