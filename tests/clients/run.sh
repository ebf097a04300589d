#!/bin/sh
# make test-clients: installs the official parsers into .hoso-clients and reads our documents with them.
# Installs by itself or fails with a sentence; never skips. Install scripts of the packages are not run.
set -eu
cd "$(dirname "$0")/../.."

command -v npm >/dev/null && command -v node >/dev/null || {
  echo 'Cần Node.js >= 18 và npm / Node.js >= 18 and npm are needed: https://nodejs.org' >&2
  exit 1
}
mkdir -p .hoso-clients
cp tests/clients/package.json tests/clients/package-lock.json .hoso-clients/
cd .hoso-clients
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || {
  echo 'Không cài được bộ đọc AsyncAPI: cần kho gói npm / The parser could not be installed: an npm registry is needed' >&2
  exit 1
}
node ../tests/clients/asyncapi.mjs ../docs/asyncapi.json
