#!/usr/bin/env bash
# Make a Redis 7 server runnable as $1: the system's own, or Debian's packages unpacked beside it.
# Installs nothing and starts nothing; needs no root unless apt has no package lists yet.
set -euo pipefail
target=$1
home=$(dirname "$target")
mkdir -p "$home"

runs() { # whether $1 is a Redis server of version 7 or newer
    [[ $("$1" --version 2>/dev/null) =~ v=([0-9]+)\. ]] && ((BASH_REMATCH[1] >= 7))
}

wrap() { # $1 the server, $2 its library path: the target becomes a script that turns into the server
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$2" "$1" >"$target.new"
    chmod +x "$target.new"
    runs "$target.new" || { echo "redis7: $1 is there but does not start: $("$target.new" --version 2>&1)" >&2; exit 1; }
    mv "$target.new" "$target"
    echo "redis7: $("$target" --version)"
}

system=$(command -v redis-server || true)
if [[ -n $system ]] && runs "$system"; then
    wrap "$system" ""
    exit 0
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "redis7: no redis-server of version 7 or newer on the PATH, and no apt to fetch one with: install Redis 7" >&2
    exit 1
}
unpacked=$home/unpacked
rm -rf "$unpacked" "$home/packages"
mkdir -p "$unpacked" "$home/packages"
chmod 755 "$home" "$unpacked" "$home/packages"
[[ -n $(apt-cache policy redis-tools 2>/dev/null) ]] || { ((EUID == 0)) && apt-get update -qq; } || {
    echo "redis7: apt has no package lists: run 'apt-get update' as root, or install Redis 7" >&2
    exit 1
}
# redis-tools holds the server's program; its direct libraries come along, what they need is on any system.
libraries=$(apt-cache depends redis-tools redis-server | sed -n 's/^ *|\?Depends: \(lib[a-z0-9.+-]*\)$/\1/p' | grep -v '^libc6$' | sort -u)
# shellcheck disable=SC2086
(cd "$home/packages" && apt-get download -qq redis-tools redis-server $libraries) || {
    echo "redis7: apt could not download redis-server: check the network, or install Redis 7" >&2
    exit 1
}
for package in "$home"/packages/*.deb; do dpkg-deb -x "$package" "$unpacked"; done
rm -rf "$home/packages"
wrap "$unpacked/usr/bin/redis-server" "$(find "$unpacked" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)"
