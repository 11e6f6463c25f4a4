#!/bin/sh
# Install what nibble builds with on Debian 12, only what is missing.  Nothing else is touched.
set -eu
packages="build-essential cmake pkg-config libcmocka-dev libopenblas-pthread-dev libcjson-dev libzstd-dev libspng-dev
libjpeg62-turbo-dev libwebp-dev libutf8proc-dev libcurl4-openssl-dev libstb-dev libpcre2-dev libxxhash-dev libssl-dev zlib1g-dev python3
libmicrohttpd-dev libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libopenmpi-dev openmpi-bin"
missing=""
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q "install ok installed" || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "installing:$missing"
run=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup.sh: run as root, or install:$missing" >&2; exit 1; }
    run=sudo
fi
$run apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends $missing >/dev/null
