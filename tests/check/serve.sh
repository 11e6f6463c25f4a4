#!/bin/sh
# README's two lines about the server: it starts, answers, and ends within its time when it is told to.
#
#     sh tests/check/serve.sh BUILD_DIR
set -eu
cd "$(dirname "$0")/../.."
program=$1/nibble
command -v curl >/dev/null || { echo "curl is not installed"; exit 77; }
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
server=
start=$(grep '^build/nibble serve ' README.md | sed -e "s#^build/nibble#$program#" -e 's/--port 8000/--port 0/')
ask=$(grep '^curl -s http://127.0.0.1:8000/' README.md)
[ -n "$start" ] && [ -n "$ask" ] || { echo "README.md shows no server"; exit 1; }
$start 2>"$work/log" &
server=$!
port=
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    port=$(sed -n 's#.*127\.0\.0\.1:\([0-9]*\)/.*#\1#p' "$work/log")
    [ -n "$port" ] && break
    sleep 0.5
done
[ -n "$port" ] || { cat "$work/log"; echo "the server does not say where it listens"; exit 1; }
sh -c "$(echo "$ask" | sed "s/:8000/:$port/")" >"$work/answer"
grep -q '"object": "chat.completion"' "$work/answer" || { cat "$work/answer"; echo "no answer"; exit 1; }
curl -s "http://127.0.0.1:$port/" | grep -q '<title>nibble</title>' || { echo "no page"; exit 1; }
curl -s -N "http://127.0.0.1:$port/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": true}' | grep -q 'data: \[DONE\]' ||
    { echo "the stream does not end"; exit 1; }
kill -TERM "$server"
wait "$server"
server=
echo "served on port $port, and ended when told to"
