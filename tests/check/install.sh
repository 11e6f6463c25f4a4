#!/bin/sh
# What a user of the library gets: install BUILD_DIR to a fresh prefix, find it with pkg-config, compile a small program against
# nibble.h as C (and the header as C++), let it ask the demo model about a picture; the installed program runs too.
#
#     sh tests/check/install.sh BUILD_DIR
#
# Prints one line a check; exit 0 when all hold, 1 when one does not, 77 when something needed is not there.
set -u
[ $# = 1 ] || { echo "usage: sh tests/check/install.sh BUILD_DIR"; exit 77; }
for tool in cmake pkg-config nm; do
    command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
compiler=
for tool in ${CC:-} cc gcc clang; do
    command -v "$tool" >/dev/null && { compiler=$tool; break; }
done
[ -n "$compiler" ] || { echo "skipped: no C compiler (cc, gcc, clang)"; exit 77; }
[ -x "$1/nibble" ] && ls "$1"/libnibble.so >/dev/null 2>&1 || { echo "skipped: $1 has no nibble and libnibble.so, build it all first"; exit 77; }
build=$(cd "$1" && pwd)
demo=$(cd "$(dirname "$0")/../../tools/demo" && pwd)
work=$(mktemp -d) || exit 77
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
wrong=0

good() { echo "good   $1"; }
bad() { # TEXT [FILE with what was printed]
    echo "WRONG  $1"
    [ $# -lt 2 ] || sed 's/^/       /' "$2"
    wrong=1
}

if cmake --install "$build" --prefix "$work/prefix" >"$work/log" 2>&1; then
    good "cmake --install: $(find "$work/prefix" -type f | wc -l) files"
else
    bad "cmake --install" "$work/log"
    exit 1
fi

# Flags for the fresh prefix: nibble.pc was written for the configured one.
folder=$(find "$work/prefix" -name nibble.pc -exec dirname {} \;)
PKG_CONFIG_PATH=$folder
export PKG_CONFIG_PATH
find_flags() { pkg-config "$@" nibble; }
if cflags=$(find_flags --cflags 2>"$work/log") && libs=$(find_flags --libs 2>>"$work/log"); then
    good "pkg-config nibble $(pkg-config --modversion nibble)"
else
    bad "pkg-config does not find nibble" "$work/log"
    exit 1
fi
libdir=$(find_flags --variable=libdir)
sanitizer=
nm -D "$libdir/libnibble.so" | grep -q __asan_init && sanitizer=-fsanitize=address,undefined

# ---- the header ----------------------------------------------------------------------------------------------------------
echo '#include <nibble.h>' >"$work/header.c"
cp "$work/header.c" "$work/header.cc"
for standard in c99 c11; do
    if "$compiler" -std=$standard -Wall -Wextra -pedantic -Werror $cflags -fsyntax-only "$work/header.c" 2>"$work/log"; then
        good "nibble.h alone as $standard ($compiler)"
    else
        bad "nibble.h alone as $standard ($compiler)" "$work/log"
    fi
done
plus=
for tool in ${CXX:-} c++ g++ clang++; do
    command -v "$tool" >/dev/null && { plus=$tool; break; }
done
if [ -z "$plus" ]; then
    echo "left out: nibble.h as C++, no C++ compiler"
elif "$plus" -std=c++11 -Wall -Wextra -pedantic -Werror $cflags -fsyntax-only "$work/header.cc" 2>"$work/log"; then
    good "nibble.h alone as C++11 ($plus)"
else
    bad "nibble.h alone as C++11 ($plus)" "$work/log"
fi

# ---- what the library exports --------------------------------------------------------------------------------------------
nm -D --defined-only "$libdir/libnibble.so" | awk '{print $3}' | sed 's/@.*//' | sort >"$work/exports"
printf '%s\n' nb_ask nb_close nb_open nb_reply_free nb_version >"$work/expected"
if diff "$work/expected" "$work/exports" >"$work/log"; then
    good "libnibble.so exports nb_open, nb_ask, nb_reply_free, nb_close, nb_version and nothing else"
else
    bad "exports of libnibble.so (< expected, > found)" "$work/log"
fi

# ---- a program of 25 lines -----------------------------------------------------------------------------------------------
cat >"$work/ask.c" <<'C'
#include <nibble.h>
#include <stdio.h>
#include <string.h>

/* ask MODEL MEDIA_ROOT MESSAGES: prints the answer; the code is the library's. */
int main(int argc, char **argv)
{
    char            error[512] = "untouched";
    nb_handle      *model = (nb_handle *)error; /* must become NULL or a model */
    nb_open_options how = {0};
    nb_reply        reply;
    if (argc != 4) return 99;
    how.media_root = argv[2];
    int code = nb_open(&model, argv[1], &how, error, sizeof error);
    if (code == 0) {
        code = nb_ask(model, argv[3], NULL, &reply, error, sizeof error);
        if (code == 0) puts(reply.text);
        else if (reply.text) return 98;
        nb_reply_free(&reply);
    } else if (model) {
        return 97;
    }
    if (code) fprintf(stderr, "%s\n", error);
    nb_close(model);
    return code;
}
C
if "$compiler" -std=c11 -Wall -Wextra -Werror $sanitizer $cflags "$work/ask.c" -o "$work/ask" $libs "-Wl,-rpath,$libdir" 2>"$work/log"; then
    good "a program compiles and links with pkg-config's flags"
else
    bad "a program compiles and links with pkg-config's flags" "$work/log"
    exit 1
fi

ask() { # MODEL MESSAGES: standard output and error in $work/out and $work/err, the code in $code
    code=0
    "$work/ask" "$1" "$demo/calib" "$2" >"$work/out" 2>"$work/err" || code=$?
    cat "$work/out" "$work/err" >"$work/log"
}
text='Read the receipt.\nPlease try to answer the question with short words or phrases if possible.'
picture='{"type": "image", "image": "images/chat-0000-0.png"}'

ask "$demo/model" "[{\"role\": \"user\", \"content\": [$picture, {\"type\": \"text\", \"text\": \"$text\"}]}]"
if [ "$code" = 0 ] && [ "$(cat "$work/out")" = "NUTS 66, SOAP 61, MILK 81" ]; then
    good "the demo model reads a receipt: $(cat "$work/out")"
else
    bad "the demo model reads a receipt (code $code, expected 'NUTS 66, SOAP 61, MILK 81')" "$work/log"
fi

refused() { # WHAT CODE PART: the last ask gave this code and a sentence that holds this
    if [ "$code" = "$2" ] && grep -q "$3" "$work/err" && [ "$(wc -l <"$work/err")" = 1 ] && [ ! -s "$work/out" ]; then
        good "$1: code $code, $(sed "s#$work#...#g; s#$demo#...#g" "$work/err")"
    else
        bad "$1: code $code, expected $2 and a sentence with '$3'" "$work/log"
    fi
}
ask "$work/nowhere" '[]'
refused "a missing directory" 5 "$work/nowhere"
ask "$demo/model/config.json" '[]'
refused "a file for a directory" 5 config.json
ask "$demo/model" '[{"role": "user"'
refused "broken messages" 5 "line 1, column"
ask "$demo/model" '[{"role": "user", "content": [{"type": "image", "image": "images/gone.png"}]}]'
refused "a missing picture" 5 gone.png

if "$work/prefix/bin/nibble" --version >"$work/log" 2>&1 && [ "$(cat "$work/log")" = "nibble $(pkg-config --modversion nibble)" ]; then
    good "the installed program: $(cat "$work/log")"
else
    bad "the installed program says its version" "$work/log"
fi
[ $wrong = 0 ] && echo "the installation holds"
exit $wrong
