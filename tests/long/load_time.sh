#!/bin/sh
# How long checkpoints take to open, and the memory they are in: packed, and mapped from a pack cache.
#
#     nibble synth 2b --out s2b && nibble quantize s2b --method rtn --gate off --out s2b-rtn
#     sh tests/long/load_time.sh BUILD_DIR SCRATCH MODEL...      SCRATCH takes a pack cache; results/loading.md has the figures
#
# One line a start, of what `bench` says about one generated token.  "cold": the files were dropped from the page cache.
set -eu
nibble=$(cd "$1" && pwd)/nibble
dir=$(mktemp -d "$2/nibble-load-XXXXXX")
trap 'rm -rf "$dir"' EXIT
shift 2
start() { # NAME MODEL FLAGS...
    name=$1
    shift
    "$nibble" bench "$@" -p 0 -n 1 -r 1 --no-warmup -o json -v > "$dir/json" 2> "$dir/said"
    python3 - "$dir" "$name" <<'P'
import json, re, sys
row = json.load(open(sys.argv[1] + "/json"))
row = row[0] if isinstance(row, list) else next(v for v in row.values() if isinstance(v, list))[0]
opened = re.search("in memory after (.*)", open(sys.argv[1] + "/said").read()).group(1)
have = row["weight_bytes"] + row["kv_bytes"]
print(f"| {sys.argv[2]} | {opened} | {have / 1e9:.3f} GB | {row['peak_rss_bytes'] / 1e9:.3f} GB | {row['peak_rss_bytes'] / have:.3f} |", flush=True)
P
}
cold() { for file; do dd "if=$file" iflag=nocache count=0 status=none; done; }
echo "| start | opened after | packed weights and KV | peak memory | ratio |"
echo "|---|---|---|---|---|"
for model; do
    of=$(basename "$model")
    cat "$model"/*.safetensors > /dev/null
    start "$of, warm" "$model"
    start "$of, warm" "$model"
    cold "$model"/*.safetensors
    start "$of, cold" "$model"
    start "$of, the cache is written" "$model" --pack-cache "$dir/packs"
    start "$of, mapped, warm" "$model" --pack-cache "$dir/packs"
    start "$of, mapped, warm" "$model" --pack-cache "$dir/packs"
    cold "$dir/packs" "$model"/*.safetensors
    start "$of, mapped, cold" "$model" --pack-cache "$dir/packs"
    rm -f "$dir/packs"
done
