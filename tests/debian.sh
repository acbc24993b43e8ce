#!/usr/bin/env bash
# debian.sh HOME PROGRAM[@MAJOR][,PROGRAM...] PACKAGE...
#
# Make each PROGRAM (its path in a Debian package, such as usr/bin/redis-server) runnable as HOME/<its name>:
# the system's own where there is one (of version MAJOR or newer, if said), else Debian's packages, with every
# library this machine lacks, unpacked beside it. Installs and starts nothing; needs no root unless apt has no
# package lists yet.
set -euo pipefail
home=$1 programs=${2//,/ }
shift 2
mkdir -p "$home"
unpacked=$home/unpacked

fail() {
    echo "debian.sh: $*" >&2
    exit 1
}

runs() { # whether $1 starts, and is of version $2 or newer where that is said
    local told
    told=$("$1" --version 2>&1) || return 1
    [[ -z $2 ]] || { [[ $told =~ (v=|version |^[A-Za-z]+\ )([0-9]+)\. ]] && ((BASH_REMATCH[2] >= $2)); }
}

wrap() { # $1 the name, $2 the least version, $3 the program, $4 its library path: a script that turns into it
    local new=$home/$1.new fonts=$home/fonts.conf
    {
        printf '#!/bin/sh\n'
        [[ -z $4 ]] || printf 'export LD_LIBRARY_PATH=%q\n' "$4"
        [[ -z $4 || ! -e $fonts ]] || printf 'export FONTCONFIG_FILE=%q\n' "$fonts"
        printf 'exec %q "$@"\n' "$3"
    } >"$new"
    chmod +x "$new"
    runs "$new" "$2" || fail "$3 is there but does not start${2:+ as version $2 or newer}: $("$new" --version 2>&1)"
    mv "$new" "$home/$1"
    echo "debian.sh: $home/$1 is $("$home/$1" --version 2>&1 | head -1)"
}

fetch() { # unpack what apt would install here for the packages $*
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "not on the PATH, and no apt to fetch it with: $programs. Install $*"
    [[ -n $(apt-cache policy "$1" 2>/dev/null) ]] || { ((EUID == 0)) && apt-get update -qq; } ||
        fail "apt has no package lists: run 'apt-get update' as root, or install $*"
    rm -rf "$unpacked" "$home/packages"
    mkdir -p "$unpacked" "$home/packages"
    chmod 755 "$home" "$unpacked" "$home/packages"
    local names
    names=$(apt-get install --simulate -qq --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    # shellcheck disable=SC2086
    (cd "$home/packages" && apt-get download -qq $names) ||
        fail "apt could not download $names: check the network, or install $*"
    for package in "$home"/packages/*.deb; do dpkg-deb -x "$package" "$unpacked"; done
    rm -rf "$home/packages"
    [[ ! -d $unpacked/usr/share/fonts ]] || printf \
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>%s</dir><dir>/usr/share/fonts</dir><cachedir>%s</cachedir></fontconfig>\n' \
        "$unpacked/usr/share/fonts" "$home/fonts" >"$home/fonts.conf"
}

missing=()
for program in $programs; do
    name=$(basename "${program%@*}") least=${program##*@}
    [[ $program == *@* ]] || least=
    if system=$(command -v "$name") && runs "$system" "$least"; then wrap "$name" "$least" "$system" ""; else missing+=("$program"); fi
done
((${#missing[@]})) || exit 0
fetch "$@"
libraries=$(find "$unpacked" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
for program in "${missing[@]}"; do
    name=$(basename "${program%@*}") least=${program##*@}
    [[ $program == *@* ]] || least=
    wrap "$name" "$least" "$unpacked/${program%@*}" "$libraries"
done
